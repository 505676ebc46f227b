//! Windows on their way to the writer: they are taken while it is busy, so that a batch grows when it is behind.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
};

use tokio::sync::{Notify, mpsc::Receiver};
use weir_schemas::Closed;

use crate::pending::Ready;

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

    /// What has come, in order, and whether that is all; the writer holds `held_bytes` without it.
    pub(crate) fn take(&self, held_bytes: u64) -> (VecDeque<Ready>, bool) {
        let mut state = self.lock();
        state.taken_bytes = held_bytes + std::mem::take(&mut state.ready_bytes);
        self.room.notify_one();
        (std::mem::take(&mut state.ready), state.over)
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
