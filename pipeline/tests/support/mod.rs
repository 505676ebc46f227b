pub(crate) mod memory_log;
