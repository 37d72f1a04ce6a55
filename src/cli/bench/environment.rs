//! Where a benchmark ran.

use std::fs;
use std::path::Path;

use super::results::Environment;

pub(super) fn look(data: &Path) -> Environment {
    let cores = std::thread::available_parallelism();
    Environment {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        os: format!(
            "{} {}",
            std::env::consts::OS,
            read("/proc/sys/kernel/osrelease")
        ),
        cpu: field("/proc/cpuinfo", "model name").unwrap_or_default(),
        cores: cores.map_or(0, usize::from),
        memory_mb: field("/proc/meminfo", "MemTotal")
            .and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok())
            .map_or(0, |kilobytes| kilobytes / 1024),
        file_system: file_system(data, &read("/proc/self/mounts")).unwrap_or_default(),
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The first `name: value` of such a file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = read(path);
    let mut lines = text.lines();
    let found = lines.find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    Some(found?.trim().to_owned())
}

/// The type of the file system that a folder is on, by the list of mounts: that of the longest mount
/// point that leads to it.
fn file_system(folder: &Path, mounts: &str) -> Option<String> {
    let folder = fs::canonicalize(folder).ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let leading = mounts.filter(|(point, _)| folder.starts_with(point));
    let longest = leading.max_by_key(|(point, _)| point.len());
    longest.map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_that_is_nearest_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tm xfs rw 0 0\n";
        let root = file_system(Path::new("/"), mounts);
        assert_eq!(root.as_deref(), Some("ext4"));
        let within = file_system(Path::new("/tmp"), mounts);
        assert_eq!(within.as_deref(), Some("tmpfs"));
        assert_eq!(file_system(Path::new("/nowhere/at/all"), mounts), None);
    }
}
