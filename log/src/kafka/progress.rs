use std::{slice, sync::Arc};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, KafkaResult},
    types::RDKafkaRespErr,
};

use super::{
    KafkaLog,
    context::{Context, REQUEST_TIMEOUT, error_of, patiently, refused},
};
use crate::{Committed, LogError, Result};

/// Bytes of a commit's metadata: `offset.metadata.max.bytes` of a broker that nobody has told otherwise.
const METADATA_BYTES_MAX: usize = 4_096;

impl KafkaLog {
    pub(super) fn commit_progress(&self, group: &str, topic: &str, progress: &[Committed]) -> Result<()> {
        if let Some(committed) = progress.iter().find(|committed| committed.metadata.len() > METADATA_BYTES_MAX) {
            return Err(LogError::TooLarge { bytes: committed.metadata.len(), bytes_max: METADATA_BYTES_MAX });
        }
        if progress.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::with_capacity(progress.len());
        for committed in progress {
            let mut element = list.add_partition(topic, partition_number(topic, committed.partition)?);
            element.set_offset(Offset::Offset(committed.offset)).map_err(|error| error_of(topic, &error))?;
            element.set_metadata(&committed.metadata);
        }
        let consumer = self.group(group)?;
        let answer = patiently(|| consumer.commit(&list, CommitMode::Sync));
        super::serve(&consumer);
        answer.map_err(|error| error_of(topic, &error))
    }

    pub(super) fn committed_progress(&self, group: &str, topic: &str) -> Result<Vec<Committed>> {
        let partitions = self.find(topic)?.ok_or_else(|| LogError::UnknownTopic(topic.to_owned()))?;
        let partitions = partition_number(topic, partitions)?;
        let consumer = self.group(group)?;
        let answer = patiently(|| {
            let mut list = TopicPartitionList::with_capacity(partitions as usize);
            for partition in 0..partitions {
                list.add_partition(topic, partition);
            }
            read(&consumer.committed_offsets(list, REQUEST_TIMEOUT)?)
        });
        super::serve(&consumer);
        answer.map_err(|error| error_of(topic, &error))
    }

    /// The client of a group: it joins nothing, it only writes and reads the group's offsets.
    fn group(&self, group: &str) -> Result<Arc<BaseConsumer<Context>>> {
        let mut groups = self.groups.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(consumer) = groups.get(group) {
            return Ok(consumer.clone());
        }
        let consumer: BaseConsumer<Context> = self
            .config
            .consumer(Some(group))
            .create_with_context(Context)
            .map_err(|error| LogError::Kafka(error.to_string()))?;
        let consumer = Arc::new(consumer);
        groups.insert(group.to_owned(), consumer.clone());
        Ok(consumer)
    }
}

/// Those partitions that have progress, ascending. Not by rdkafka's accessor, which panics on metadata that another
/// tool wrote in another encoding.
fn read(list: &TopicPartitionList) -> KafkaResult<Vec<Committed>> {
    // SAFETY: the list owns `cnt` elements, and each its metadata; both live as long as `list`.
    let elements = unsafe {
        let list = &*list.ptr();
        match list.cnt {
            1.. => slice::from_raw_parts(list.elems, list.cnt as usize),
            _ => &[],
        }
    };
    let mut progress = Vec::new();
    for element in elements {
        if element.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(KafkaError::OffsetFetch(element.err.into()));
        }
        if element.offset < 0 {
            continue;
        }
        let metadata = match element.metadata.is_null() {
            true => &[],
            // SAFETY: see above.
            false => unsafe { slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size) },
        };
        progress.push(Committed {
            partition: element.partition as u32,
            offset: element.offset,
            metadata: String::from_utf8_lossy(metadata).into_owned(),
        });
    }
    progress.sort_by_key(|committed| committed.partition);
    Ok(progress)
}

/// Kafka's partitions are signed.
pub(super) fn partition_number(topic: &str, partition: u32) -> Result<i32> {
    i32::try_from(partition).map_err(|_| refused(topic, format!("partition {partition} is too large a number")))
}
