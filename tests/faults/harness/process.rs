//! One child process, that can be started again and again.

use std::fs;
use std::path::{Path, PathBuf};

use paxos_commit::cluster::ChildProcess;

/// The program that everything runs.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_paxos-commit");

/// A machine with one program on it. The machine stays; the program comes and goes.
pub(crate) struct Process {
    pub(crate) arguments: Vec<String>,
    /// What stands before the program's name: `strace -f ...`, `env NAME=VALUE`.
    pub(crate) wrap: Vec<String>,
    pub(crate) log: PathBuf,
    child: Option<ChildProcess>,
    paused: bool,
}

impl Process {
    pub(crate) fn new(name: &str, arguments: Vec<String>, folder: &Path) -> Process {
        Process {
            arguments,
            wrap: Vec::new(),
            log: folder.join(format!("{name}.log")),
            child: None,
            paused: false,
        }
    }

    /// Starts it, unless it runs.
    pub(crate) fn start(&mut self) {
        if self.child.is_some() {
            return;
        }
        let mut words = self.wrap.clone();
        words.push(PROGRAM.to_owned());
        words.extend(["--log".to_owned(), "info".to_owned()]);
        words.extend(self.arguments.iter().cloned());
        let arguments: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let child = ChildProcess::start(Path::new(&words[0]), &arguments, &self.log);
        self.child = Some(child.unwrap());
        self.paused = false;
    }

    /// SIGKILL. True if it ran.
    pub(crate) async fn kill(&mut self) -> bool {
        self.paused = false;
        match self.child.take() {
            Some(child) => {
                child.kill().await.unwrap();
                true
            }
            None => false,
        }
    }

    /// SIGSTOP. True if it ran.
    pub(crate) fn pause(&mut self) -> bool {
        let paused = self
            .child
            .as_ref()
            .is_some_and(|child| child.pause().is_ok());
        self.paused |= paused;
        paused
    }

    /// SIGCONT, if it was stopped.
    pub(crate) fn resume(&mut self) {
        if std::mem::take(&mut self.paused)
            && let Some(child) = &self.child
        {
            child.resume().unwrap();
        }
    }

    /// Stops it in order. What it says if it fails.
    pub(crate) async fn stop(&mut self) -> Result<(), String> {
        self.resume();
        match self.child.take() {
            Some(child) => child.stop().await.map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    /// How it has ended, if it has without being told.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let child = self.child.as_mut()?;
        let status = child.has_ended().unwrap()?;
        Some(format!("{status}: {}", child.last_words()))
    }

    /// Whoever has ended by itself may be started again.
    #[cfg(feature = "fault-injection")]
    pub(crate) fn bury(&mut self) {
        if self.ended().is_some() {
            self.child = None;
        }
    }

    /// Its process id, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// All that it has printed, over all its lives.
    pub(crate) fn printed(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
