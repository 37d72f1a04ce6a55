//! Stands between a service and its database's socket, and stops the conversation at a given step.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Where in a step the conversation stops. A step is whatever the service says in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The server has not got it.
    Before,
    /// The server has answered, and the service has not got the answer.
    After,
}

impl Moment {
    pub(crate) const BOTH: [Moment; 2] = [Moment::Before, Moment::After];
}

/// A socket that leads to another one.
pub(crate) struct Tap {
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
    folder: tempfile::TempDir,
    name: String,
}

struct Shared {
    target: PathBuf,
    armed: Mutex<Option<Armed>>,
    /// Changes when all conversations are cut off.
    cut: watch::Sender<u32>,
}

/// What waits for a step.
struct Armed {
    /// Only what holds this is a step.
    text: &'static str,
    steps: usize,
    moment: Moment,
    reached: oneshot::Sender<Held>,
}

/// A conversation that was stopped. It ends when this is dropped.
pub(crate) struct Held(oneshot::Sender<()>);

impl Held {
    /// It was only held up.
    pub(crate) fn go_on(self) {
        // Its ends may be gone by now.
        let _ = self.0.send(());
    }
}

impl Tap {
    /// Leads to `target`, under the same file name in a folder of its own.
    pub(crate) fn open(target: &Path) -> Tap {
        let folder = tempfile::Builder::new().prefix("tap-").tempdir().unwrap();
        let name = target.file_name().unwrap().to_str().unwrap().to_owned();
        let listener = UnixListener::bind(folder.path().join(&name)).unwrap();
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            armed: Mutex::default(),
            cut: watch::Sender::new(0),
        });
        let of = shared.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let (service, _) = listener.accept().await.unwrap();
                let shared = of.clone();
                tokio::spawn(async move {
                    // A server that is away refuses.
                    if let Ok(server) = UnixStream::connect(&shared.target).await {
                        shared.talk(service, server).await;
                    }
                });
            }
        });
        Tap {
            shared,
            accepting,
            folder,
            name,
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    /// From now on so many steps, the last of them stopped at this moment.
    pub(crate) fn arm(&self, steps: usize, moment: Moment) -> oneshot::Receiver<Held> {
        self.arm_at("", steps, moment)
    }

    /// As [`arm`](Self::arm); but only what holds `text` is a step.
    pub(crate) fn arm_at(
        &self,
        text: &'static str,
        steps: usize,
        moment: Moment,
    ) -> oneshot::Receiver<Held> {
        let (reached, reaching) = oneshot::channel();
        *self.shared.armed.lock().unwrap() = Some(Armed {
            text,
            steps,
            moment,
            reached,
        });
        reaching
    }

    pub(crate) fn disarm(&self) {
        *self.shared.armed.lock().unwrap() = None;
    }

    /// Ends all conversations at once, as a process that dies does.
    pub(crate) fn cut(&self) {
        self.shared.cut.send_modify(|count| *count += 1);
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Shared {
    async fn talk(&self, service: UnixStream, server: UnixStream) {
        let mut cut = self.cut.subscribe();
        tokio::select! {
            _ = cut.changed() => {}
            () = self.pass(service, server) => {}
        }
    }

    /// Until one side ends, or a step is reached.
    async fn pass(&self, mut service: UnixStream, mut server: UnixStream) {
        let (mut said, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
        let mut stop = None;
        loop {
            tokio::select! {
                count = service.read(&mut said) => {
                    let Ok(count @ 1..) = count else { return };
                    match self.step(&said[..count]) {
                        Some((Moment::Before, reached)) => {
                            let then = hold(reached).await;
                            if then == Then::End {
                                return;
                            }
                        }
                        Some((Moment::After, reached)) => stop = Some(reached),
                        None => {}
                    }
                    if server.write_all(&said[..count]).await.is_err() {
                        return;
                    }
                }
                count = server.read(&mut answered) => {
                    let Ok(count @ 1..) = count else { return };
                    if let Some(reached) = stop.take()
                        && hold(reached).await == Then::End
                    {
                        return;
                    }
                    if service.write_all(&answered[..count]).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Counts a step; whether it is the one.
    fn step(&self, said: &[u8]) -> Option<(Moment, oneshot::Sender<Held>)> {
        let mut held = self.armed.lock().unwrap();
        let armed = held.as_mut()?;
        let text = armed.text.as_bytes();
        if !text.is_empty() && !said.windows(text.len()).any(|part| part == text) {
            return None;
        }
        armed.steps -= 1;
        if armed.steps > 0 {
            return None;
        }
        let Armed {
            moment, reached, ..
        } = held.take()?;
        Some((moment, reached))
    }
}

/// What becomes of a conversation that was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    GoOn,
    End,
}

/// Keeps both ends open until whoever armed it says what next.
async fn hold(reached: oneshot::Sender<Held>) -> Then {
    let (held, let_go) = oneshot::channel();
    if reached.send(Held(held)).is_err() {
        // Nobody waits for it any more.
        return Then::GoOn;
    }
    match let_go.await {
        Ok(()) => Then::GoOn,
        Err(_) => Then::End,
    }
}
