//! A throw-away MariaDB server.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::process::ServerProcess;
use super::{Home, ServerError, find};

/// The Debian package that has the binaries.
const PACKAGE: &str = "mariadb-server";

/// The name of its socket, in its folder.
const SOCKET: &str = "socket";

/// A MariaDB server of its own; see the [module](super).
///
/// It forces its log to disk like any other: what it acknowledged survives [`kill`](Self::kill).
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use paxos_commit::cluster::servers::ThrowawayMariadb;
///
/// let mut server = ThrowawayMariadb::start(&[("max_connections", "50")]).await?;
/// println!("{}", server.url("test"));
/// server.kill();              // without warning
/// server.restart().await?;    // on what it left
/// # Ok(())
/// # }
/// ```
pub struct ThrowawayMariadb {
    // Dropped in this order: the process ends before its folder is removed.
    process: Option<ServerProcess>,
    program: PathBuf,
    settings: Vec<(String, String)>,
    home: Home,
}

impl ThrowawayMariadb {
    /// The user, who may do everything and needs no password.
    pub const USER: &str = "root";

    /// A database that is there from the beginning, and empty.
    pub const DATABASE: &str = "test";

    /// Makes a data directory and starts a server on it, with these settings besides its defaults.
    ///
    /// # Errors
    /// When MariaDB is not installed, or does not start.
    pub async fn start(settings: &[(&str, &str)]) -> Result<Self, ServerError> {
        let install = find("mariadb-install-db", PACKAGE)?;
        let program = find("mariadbd", PACKAGE)?;
        let home = Home::create()?;
        let mut command = home.command(&install);
        command.arg("--no-defaults");
        command.arg(format!("--datadir={}", data(&home).display()));
        command.arg(format!("--tmpdir={}", home.path().display()));
        // The folder is closed to others, so nobody needs a password.
        command.args([
            "--auth-root-authentication-method=normal",
            "--skip-name-resolve",
        ]);
        // A crash of a process loses nothing that was written, so what this makes need not be forced
        // to disk.
        command.args(["--innodb-flush-method=nosync", "--innodb-log-file-size=16M"]);
        home.run(command).await?;
        let mut server = ThrowawayMariadb {
            process: None,
            program,
            settings: Vec::new(),
            home,
        };
        for (name, value) in settings {
            server.set(name, value);
        }
        server.restart().await?;
        Ok(server)
    }

    /// A setting, from the next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(held, _)| held != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Where one of its databases is.
    pub fn url(&self, database: &str) -> String {
        let (user, socket) = (Self::USER, self.home.path().join(SOCKET));
        // The path of a temporary folder needs no escapes but for this.
        let socket = socket.display().to_string().replace('/', "%2F");
        format!("mysql://{user}@localhost/{database}?socket={socket}")
    }

    /// Its data directory, log and socket are in here.
    pub fn folder(&self) -> &Path {
        self.home.path()
    }

    /// The process id, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        Some(self.process.as_ref()?.id())
    }

    /// Kills it with SIGKILL. Returns when it is gone.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Stops it in order: it breaks all connections, and saves what it has.
    pub fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.stop(Signal::TERM);
        }
    }

    /// Starts it on the data that it left.
    ///
    /// # Errors
    /// When it runs, or does not start.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        if self.process.is_some() {
            return Err(ServerError::Running);
        }
        let folder = self.home.path();
        let socket = folder.join(SOCKET);
        let mut command = self.home.command(&self.program);
        command.arg("--no-defaults");
        command.arg(format!("--datadir={}", data(&self.home).display()));
        command.arg(format!("--tmpdir={}", folder.display()));
        command.arg(format!("--socket={}", socket.display()));
        command.arg(format!("--pid-file={}", folder.join("pid").display()));
        command.args(["--skip-networking", "--skip-name-resolve"]);
        for (name, value) in &self.settings {
            command.arg(format!("--{}={value}", name.replace('_', "-")));
        }
        // What stands there from before a crash answers nobody.
        let _ = std::fs::remove_file(&socket);
        let mut process = self.home.start(command)?;
        process.answers(|| is_ready(&socket)).await?;
        self.process = Some(process);
        Ok(())
    }
}

fn data(home: &Home) -> PathBuf {
    home.path().join("data")
}

/// Whether it takes connections: it makes its socket when its recovery is done.
fn is_ready(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}
