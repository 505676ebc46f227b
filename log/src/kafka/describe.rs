use std::{
    ffi::{CStr, CString},
    ptr, thread,
    time::{Duration, Instant},
};

use rdkafka::{bindings as rd, consumer::Consumer, error::RDKafkaErrorCode, types::RDKafkaRespErr};

use super::{
    KafkaLog,
    context::{REQUEST_TIMEOUT, error_of_code, refused},
};
use crate::{LogError, Result};

/// What a broker says that knows no ids: all bits zero.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

impl KafkaLog {
    /// Which topic of this name it is, in base64 as Kafka's own tools print it; `None` before Kafka 2.8.
    ///
    /// By librdkafka's DescribeTopics, of which the `rdkafka` crate has no wrapper.
    pub(super) fn id_of(&self, topic: &str) -> Result<Option<String>> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            match self.describe(topic) {
                // The brokers agree among themselves, as after a restart.
                Err(LogError::Unavailable(_)) if Instant::now() < deadline => thread::sleep(Duration::from_millis(50)),
                answer => return answer,
            }
        }
    }

    fn describe(&self, topic: &str) -> Result<Option<String>> {
        let name = CString::new(topic).map_err(|_| LogError::UnknownTopic(topic.to_owned()))?;
        let client = self.lookup.client().native_ptr();
        // SAFETY: every object is made here, and destroyed below after its last use; the name outlives the call that
        // copies it; what is read of the event is copied before the event goes.
        unsafe {
            let mut names = [name.as_ptr()];
            let topics = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
            let queue = rd::rd_kafka_queue_new(client);
            rd::rd_kafka_DescribeTopics(client, topics, ptr::null(), queue);
            let event = rd::rd_kafka_queue_poll(queue, REQUEST_TIMEOUT.as_millis() as i32);
            let answer = match event.is_null() {
                true => Err(error_of_code(topic, RDKafkaErrorCode::OperationTimedOut)),
                false => id_in(topic, event),
            };
            if !event.is_null() {
                rd::rd_kafka_event_destroy(event);
            }
            rd::rd_kafka_queue_destroy(queue);
            rd::rd_kafka_TopicCollection_destroy(topics);
            answer
        }
    }
}

/// SAFETY: `event` is one that a queue has given, and is not destroyed yet.
unsafe fn id_in(topic: &str, event: *mut rd::rd_kafka_event_t) -> Result<Option<String>> {
    let check = |code: RDKafkaRespErr| match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(error_of_code(topic, code.into())),
    };
    // SAFETY: the result, and what it points to, belong to the event.
    unsafe {
        match rd::rd_kafka_event_error(event) {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION => return Ok(None),
            code => check(code)?,
        }
        let result = rd::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(refused(topic, "the broker answered another question"));
        }
        let mut count = 0;
        let described = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if count == 0 {
            return Err(refused(topic, "the broker gave no answer"));
        }
        let error = rd::rd_kafka_TopicDescription_error(*described);
        if !error.is_null() {
            check(rd::rd_kafka_error_code(error))?;
        }
        let id = rd::rd_kafka_Uuid_base64str(rd::rd_kafka_TopicDescription_topic_id(*described));
        if id.is_null() {
            return Ok(None);
        }
        let id = CStr::from_ptr(id).to_string_lossy().into_owned();
        Ok((id != NO_ID).then_some(id))
    }
}
