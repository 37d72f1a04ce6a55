//! When to stop, and when not to.

use std::io::Read;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Completes at SIGTERM or Ctrl-C, or, `with_parent`, when standard input ends: a parent that dies,
/// in whatever way, leaves no child behind.
pub(super) fn shutdown(
    with_parent: bool,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let (parent_gone, gone) = oneshot::channel();
    if with_parent {
        std::thread::spawn(move || {
            let mut byte = [0];
            while matches!(std::io::stdin().read(&mut byte), Ok(count) if count > 0) {}
            let _ = parent_gone.send(());
        });
    } else {
        // Never completes.
        std::mem::forget(parent_gone);
    }
    Ok(async move {
        let hung_up = async move {
            // Its terminal has gone, or an operator expects that settings are read again.
            while hangup.recv().await.is_some() {
                tracing::info!("SIGHUP: settings are read at the start only; going on");
            }
            std::future::pending().await
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = gone => {}
            () = hung_up => {}
        }
    })
}
