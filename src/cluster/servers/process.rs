//! The process of a server, and its end.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::ServerError;

/// How long a server may take until it answers: after a crash it reads its log first.
const START_MAX: Duration = Duration::from_secs(120);

/// How long a server may take to stop in order, before it is killed.
const STOP_MAX: Duration = Duration::from_secs(30);

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// A server that runs. Dropping it kills it.
pub(super) struct ServerProcess {
    child: Child,
    /// Kills the server when this process ends, in whatever way: it holds the other end of a pipe.
    watch: Child,
    log: PathBuf,
}

impl ServerProcess {
    pub(super) fn start(mut command: Command, folder: &Path) -> Result<Self, ServerError> {
        let log = folder.join("server.log");
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| ServerError::Io {
                action,
                path,
                source,
            }
        };
        let output = File::options().create(true).append(true).open(&log);
        let output = output.map_err(failed("open", &log))?;
        let errors = output.try_clone().map_err(failed("open", &log))?;
        // A Ctrl-C on the terminal is this process's affair; it ends its servers in order.
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        command.process_group(0);
        let program = PathBuf::from(command.get_program());
        let mut child = command.spawn().map_err(failed("start", &program))?;
        match watch(&child, folder) {
            Ok(watch) => Ok(ServerProcess { child, watch, log }),
            Err(source) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(failed("start", Path::new("/bin/sh"))(source))
            }
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the server answers.
    pub(super) async fn answers(
        &mut self,
        mut is_ready: impl FnMut() -> bool,
    ) -> Result<(), ServerError> {
        let begun = Instant::now();
        while !is_ready() {
            if let Ok(Some(status)) = self.child.try_wait() {
                let log = self.last_words();
                return Err(ServerError::Ended { status, log });
            }
            if begun.elapsed() > START_MAX {
                return Err(ServerError::Silent {
                    seconds: START_MAX.as_secs(),
                    log: self.last_words(),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Kills the server and all its processes where they stand: SIGKILL. Returns when they are gone.
    pub(super) fn kill(mut self) {
        self.kill_all();
    }

    /// Stops the server in the order that this signal means to it, and kills it if that takes too
    /// long.
    pub(super) fn stop(mut self, signal: Signal) {
        send(self.id(), signal);
        let begun = Instant::now();
        while let Ok(None) = self.child.try_wait() {
            if begun.elapsed() > STOP_MAX {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }

    fn kill_all(&mut self) {
        let id = self.id();
        if let Ok(None) = self.child.try_wait() {
            // It must not notice that its processes die, nor start others meanwhile.
            send(id, Signal::STOP);
            let children = children_of(id);
            send(id, Signal::KILL);
            for child in &children {
                send(*child, Signal::KILL);
            }
            let _ = self.child.wait();
            // Until the last one is gone, a server refuses to start on the same data.
            let begun = Instant::now();
            while children.iter().any(|child| lives(*child)) && begun.elapsed() < STOP_MAX {
                std::thread::sleep(LOOK);
            }
        }
        let _ = self.watch.kill();
        let _ = self.watch.wait();
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// A shell that waits for the end of this process, then has the server end at once and removes its
/// folder. While it waits the server is a child of this process that was not waited for, so its id is
/// nobody else's.
fn watch(server: &Child, folder: &Path) -> std::io::Result<Child> {
    let script = r#"read -r _; kill -QUIT "$1"; kill -CONT "$1"; sleep 2; rm -rf -- "$2""#;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "watch", &server.id().to_string()]);
    command.arg(folder).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    command.stderr(Stdio::null()).process_group(0).spawn()
}

fn send(id: u32, signal: Signal) {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw);
    if let Some(id) = id {
        // It may be gone by itself.
        let _ = kill_process(id, signal);
    }
}

/// The processes that a server has started; none where the system does not tell.
fn children_of(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| state_of(*id).is_some_and(|(_, of)| of == parent))
        .collect()
}

/// Whether it still holds anything: a process that nobody has waited for holds nothing.
fn lives(id: u32) -> bool {
    state_of(id).is_some_and(|(state, _)| state != 'Z')
}

/// The state of a process, and its parent.
fn state_of(id: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name stands in parentheses, and may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}
