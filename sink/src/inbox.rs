//! Windows on their way to the writer: they are taken while it is busy, so that a batch grows when it is behind.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
};

use tokio::sync::{Notify, mpsc::Receiver};
use weir_schemas::Closed;

use crate::pending::{Pending, Ready};

/// Rows whose digests are made without another thread: 2,000 × ~0.2 µs is less than handing them over and back is worth.
const ROWS_AT_ONCE: usize = 2_000;

/// What was taken from the pipeline and not yet by the writer.
pub(crate) struct Inbox {
    bytes_max: u64,
    state: Mutex<State>,
    /// Something has come, or nothing more will.
    more: Notify,
    /// There may be room again.
    room: Notify,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Ready>,
    ready_bytes: u64,
    /// What the writer holds.
    taken_bytes: u64,
    over: bool,
}

impl Inbox {
    /// Takes windows until it and the writer hold `bytes_max` together.
    pub(crate) fn new(bytes_max: u64) -> Inbox {
        Inbox { bytes_max, state: Mutex::default(), more: Notify::new(), room: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Takes what `closed` brings, until it ends.
    pub(crate) async fn fill(&self, mut closed: Receiver<Closed>) {
        loop {
            while !self.has_room() {
                self.room.notified().await;
            }
            let Some(message) = closed.recv().await else { break };
            let ready = make_ready(message).await;
            let mut state = self.lock();
            state.ready_bytes += ready.bytes();
            state.ready.push_back(ready);
            self.more.notify_one();
        }
        self.lock().over = true;
        self.more.notify_one();
    }

    fn has_room(&self) -> bool {
        let state = self.lock();
        state.ready_bytes + state.taken_bytes < self.bytes_max
    }

    /// Hands over what has come, in order, and says whether that is all.
    ///
    /// What counts from then on is what `pending` has kept of it: windows that another owner has done meanwhile take no
    /// room, or nothing more would ever be taken while it has none to write.
    pub(crate) fn hand_over(&self, pending: &mut Pending) -> bool {
        let mut state = self.lock();
        state.ready_bytes = 0;
        std::mem::take(&mut state.ready).into_iter().for_each(|ready| pending.push(ready));
        state.taken_bytes = pending.bytes();
        self.room.notify_one();
        state.over
    }

    /// Resolves when there may be something to take.
    pub(crate) async fn changed(&self) {
        self.more.notified().await;
    }
}

async fn make_ready(message: Closed) -> Ready {
    let rows = if let Closed::Window(emission) = &message { emission.rows() } else { 0 };
    if rows <= ROWS_AT_ONCE {
        return Ready::of(message);
    }
    // Digests of a large window take a while; the connection's tasks go on meanwhile.
    let ready = tokio::task::spawn_blocking(move || Ready::of(message)).await;
    ready.unwrap_or_else(|why| std::panic::resume_unwind(why.into_panic()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        limits::Limits,
        pending::tests::{at, closed_window, width},
    };

    /// As a writer does that waits for a window it may write.
    async fn wait_for_a_batch(inbox: &Inbox, pending: &mut Pending) {
        inbox.hand_over(pending);
        while pending.batch(None).is_none() {
            inbox.changed().await;
            inbox.hand_over(pending);
        }
    }

    #[tokio::test]
    async fn windows_that_another_owner_has_done_make_room_for_those_after_them() {
        let limits = Limits { pending_bytes_max: 1, ..Limits::of_memory(768 << 20) };
        let inbox = Inbox::new(limits.pending_bytes_max);
        let mut pending = Pending::new(width(), at(0), false, limits);
        pending.done_through(at(6));
        let (sender, closed) = mpsc::channel(1);
        let feed = async move {
            for hour in 0..7 {
                sender.send(closed_window(hour)).await.expect("it is taken");
            }
        };
        let come = async { tokio::join!(feed, inbox.fill(closed)) };
        let writer = tokio::time::timeout(Duration::from_secs(10), wait_for_a_batch(&inbox, &mut pending));
        tokio::select! {
            waited = writer => waited.expect("the inbox takes what comes"),
            _ = come => unreachable!("the last window fills it"),
        }
        let batch = pending.batch(None).map(|batch| (batch.from, batch.to, batch.wanted.rows));
        assert_eq!(batch, Some((at(6), at(7), 1)));
    }
}
