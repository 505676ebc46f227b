//! A log that does something of its own before an append.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use weir_log::{Appended, Bounds, Committed, Log, Reader, Result, TopicKind};

/// Given topic and payload of an append; `Some` is the answer, and the append does not happen.
pub(crate) type Hook = Box<dyn Fn(&str, &Bytes) -> Option<BoxFuture<'static, Result<Appended>>> + Send + Sync>;

pub(crate) struct Hooked {
    pub(crate) inner: Arc<dyn Log>,
    pub(crate) hook: Hook,
}

impl Log for Hooked {
    fn append(
        &self,
        topic: &str,
        partition: u32,
        payload: Bytes,
        stamp_ms: Option<i64>,
    ) -> BoxFuture<'static, Result<Appended>> {
        (self.hook)(topic, &payload).unwrap_or_else(|| self.inner.append(topic, partition, payload, stamp_ms))
    }

    fn create_topic(&self, topic: &str, kind: &TopicKind) -> Result<()> {
        self.inner.create_topic(topic, kind)
    }

    fn repair_topic(&self, topic: &str, kind: &TopicKind) -> Result<()> {
        self.inner.repair_topic(topic, kind)
    }

    fn delete_topic(&self, topic: &str) -> Result<()> {
        self.inner.delete_topic(topic)
    }

    fn topics(&self) -> Result<Vec<String>> {
        self.inner.topics()
    }

    fn partitions(&self, topic: &str) -> Result<u32> {
        self.inner.partitions(topic)
    }

    fn grow(&self, topic: &str, partitions: u32) -> Result<()> {
        self.inner.grow(topic, partitions)
    }

    fn reader(&self, topic: &str) -> Result<Box<dyn Reader>> {
        self.inner.reader(topic)
    }

    fn bounds(&self, topic: &str, partition: u32) -> Result<Bounds> {
        self.inner.bounds(topic, partition)
    }

    fn offset_at(&self, topic: &str, partition: u32, at_ms: i64) -> Result<Option<i64>> {
        self.inner.offset_at(topic, partition, at_ms)
    }

    fn commit(&self, group: &str, topic: &str, progress: &[Committed]) -> Result<()> {
        self.inner.commit(group, topic, progress)
    }

    fn committed(&self, group: &str, topic: &str) -> Result<Vec<Committed>> {
        self.inner.committed(group, topic)
    }

    fn retention(&self, topic: &str) -> Result<Option<Duration>> {
        self.inner.retention(topic)
    }
}
