//! Sorted events into an import's topic: full batches, several appends in flight, an end record in each partition.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use futures::{executor::block_on, future::BoxFuture};
use weir_log::{Appended, Clock, Log};
use weir_schemas::{
    BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Event,
    wire::{BatchBuilder, End, batch_record, end_record},
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{ImportError, event, progress::Progress, sort::Sorted, stop::Stop};

/// Appends whose acknowledgement is waited for at most: 8 × 0.9 MB is enough to keep a broker 10 ms away busy.
const IN_FLIGHT_MAX: usize = 8;

/// Events for which one partition is enough; beyond it an import has one more, so that more workers can read it.
///
/// A batch has at most 16,384 events, so with this many per partition each has several batches, and none is empty.
const EVENTS_PER_PARTITION: u64 = 250_000;
const PARTITIONS_MAX: u64 = 4;
const _: () = assert!(EVENTS_PER_PARTITION > 4 * BATCH_EVENTS_MAX as u64);

/// What an event takes in a batch besides its strings: two times, a visitor, an index into each column.
const EVENT_BYTES_MAX: usize = 256;

/// Into how many partitions an import of so many events goes.
pub(crate) fn partitions_of(events: u64) -> u32 {
    events.div_ceil(EVENTS_PER_PARTITION).clamp(1, PARTITIONS_MAX) as u32
}

/// Where to write, and what the batches have in common.
pub(crate) struct Target<'a> {
    pub(crate) log: &'a Arc<dyn Log>,
    pub(crate) clock: &'a Arc<dyn Clock>,
    pub(crate) topic: &'a str,
    pub(crate) partitions: u32,
    pub(crate) collector: [u8; 16],
    pub(crate) site: &'a str,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) events: u64,
    /// Event times, ms since the Unix epoch.
    pub(crate) first_ms: i64,
    pub(crate) last_ms: i64,
}

/// Writes everything, and returns after all of it is durable. `sort_error` words what goes wrong while reading runs.
pub(crate) fn write(
    target: &Target,
    sorted: &mut Sorted,
    stop: &Stop,
    progress: &Progress,
    sort_error: impl Fn(std::io::Error) -> ImportError,
) -> Result<Written, ImportError> {
    let mut writer = Writer {
        target,
        sequence: 0,
        ends: vec![End { events: 0, last_ms: 0, digest: 0 }; target.partitions as usize],
        in_flight: VecDeque::new(),
    };
    let mut written = Written { events: 0, first_ms: 0, last_ms: 0 };
    let mut event = Event { site: target.site.to_owned(), ..Event::default() };
    let mut batch = BatchBuilder::new(target.collector, 0);
    while let Some((time_ms, bytes)) = sorted.next().map_err(&sort_error)? {
        if batch.len() == BATCH_EVENTS_MAX || batch.bytes_at_most() + bytes.len() + EVENT_BYTES_MAX > BATCH_BYTES_MAX {
            batch = writer.append(batch, written.last_ms)?;
            progress.events(written.events);
            if stop.stopped() {
                return Err(ImportError::Stopped);
            }
        }
        event::read(bytes, time_ms, &mut event);
        batch.push(&event);
        if written.events == 0 {
            written.first_ms = time_ms;
        }
        assert!(time_ms >= written.last_ms || written.events == 0, "the sorter sorts");
        written.last_ms = time_ms;
        written.events += 1;
    }
    if !batch.is_empty() {
        writer.append(batch, written.last_ms)?;
    }
    writer.end()?;
    Ok(written)
}

struct Writer<'a> {
    target: &'a Target<'a>,
    sequence: u64,
    ends: Vec<End>,
    in_flight: VecDeque<BoxFuture<'static, weir_log::Result<Appended>>>,
}

impl Writer<'_> {
    /// Deals the batch to the next partition, and gives an empty one.
    fn append(&mut self, batch: BatchBuilder, last_ms: i64) -> Result<BatchBuilder, ImportError> {
        let partition = (self.sequence % u64::from(self.target.partitions)) as u32;
        let events = batch.len() as u64;
        let encoded = batch.finish();
        let end = &mut self.ends[partition as usize];
        end.events += events;
        end.last_ms = last_ms;
        end.digest = end.digest.wrapping_add(xxh3_64(&encoded));
        self.send(partition, batch_record(self.target.clock.now_ms(), &encoded), last_ms)?;
        self.sequence += 1;
        Ok(BatchBuilder::new(self.target.collector, self.sequence))
    }

    fn send(&mut self, partition: u32, record: Vec<u8>, stamp_ms: i64) -> Result<(), ImportError> {
        while self.in_flight.len() >= IN_FLIGHT_MAX {
            self.settle()?;
        }
        let append = self.target.log.append(self.target.topic, partition, Bytes::from(record), Some(stamp_ms));
        self.in_flight.push_back(append);
        Ok(())
    }

    /// Waits for the oldest append. One without a clear answer fails the import, which is then taken back: sent again,
    /// the batch might be there twice.
    fn settle(&mut self) -> Result<(), ImportError> {
        if let Some(append) = self.in_flight.pop_front() {
            block_on(append)?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), ImportError> {
        while !self.in_flight.is_empty() {
            self.settle()?;
        }
        for partition in 0..self.target.partitions {
            let end = self.ends[partition as usize];
            self.send(partition, end_record(self.target.clock.now_ms(), end), end.last_ms)?;
        }
        while !self.in_flight.is_empty() {
            self.settle()?;
        }
        Ok(())
    }
}
