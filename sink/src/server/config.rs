//! What the server is told: its configuration and its users, as the XML files that ClickHouse reads.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use weir_schemas::tables::public_views;

use super::ServerSpec;

/// Memory of one query of the analyst, as a share of the server's: two of them and the writer fit.
const ANALYST_MEMORY_PERCENT: u64 = 30;

/// Seconds one query of the analyst may take.
const ANALYST_SECONDS_MAX: u64 = 60;

/// Queries of the analyst at once.
const ANALYST_QUERIES_MAX: u64 = 8;

/// Temporary files of the analyst's queries together.
const ANALYST_TEMPORARY_BYTES_MAX: u64 = 4 << 30;

/// The whole of `config.xml`.
///
/// The caches are small: one table that is mostly appended to, on a machine that does other work too.
pub(super) fn config_xml(spec: &ServerSpec, http_port: u16) -> String {
    let dir = escape(&spec.dir.display().to_string());
    format!(
        "<clickhouse>
  <log-level>error</log-level>
  <logger>
    <level>error</level>
    <log>{dir}/log/clickhouse.log</log>
    <errorlog>{dir}/log/clickhouse.err.log</errorlog>
    <size>5M</size>
    <count>2</count>
  </logger>
  <path>{dir}/data/</path>
  <tmp_path>{dir}/data/tmp/</tmp_path>
  <user_files_path>{dir}/data/user_files/</user_files_path>
  <format_schema_path>{dir}/data/format_schemas/</format_schema_path>
  <users_config>{dir}/users.xml</users_config>
  <user_directories><users_xml><path>{dir}/users.xml</path></users_xml></user_directories>
  <listen_host>{host}</listen_host>
  <http_port>{http_port}</http_port>
  <max_server_memory_usage>{memory}</max_server_memory_usage>
  <mark_cache_size>67108864</mark_cache_size>
  <index_mark_cache_size>16777216</index_mark_cache_size>
  <uncompressed_cache_size>0</uncompressed_cache_size>
  <mmap_cache_size>64</mmap_cache_size>
  <compiled_expression_cache_size>16777216</compiled_expression_cache_size>
  <background_pool_size>4</background_pool_size>
  <backups><allowed_path>{backups}/</allowed_path></backups>
  <access_control_improvements>
    <select_from_system_db_requires_grant>true</select_from_system_db_requires_grant>
    <select_from_information_schema_requires_grant>true</select_from_information_schema_requires_grant>
  </access_control_improvements>
</clickhouse>
",
        host = escape(&spec.listen_host),
        backups = escape(&spec.backups.display().to_string()),
        memory = spec.memory_bytes,
    )
}

/// The whole of `users.xml`: the writer, the analyst, and a `default` that nobody can use.
///
/// The embedded server is `clickhouse-local`, which logs itself in as `default` without a password, so that user must
/// exist. Its grants are those of the two statements that open the listener, and its quota is used up by them; what is
/// left to a stranger is to select constants. A server from the PATH does without that, and gets a password on it.
pub(super) fn users_xml(spec: &ServerSpec, writer_password: &str) -> String {
    let mut grants = String::new();
    for view in public_views() {
        let _ = write!(grants, "\n        <query>GRANT SELECT ON {}.{view}</query>", escape(&spec.database));
    }
    let default_password = match spec.program {
        super::Program::Embedded { .. } => "<password></password>".to_owned(),
        super::Program::Clickhouse { .. } => hashed(writer_password),
    };
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let memory = spec.memory_bytes * ANALYST_MEMORY_PERCENT / 100;
    let mut limits: Vec<(&str, u64)> = vec![
        ("max_memory_usage", memory),
        ("max_memory_usage_for_user", 2 * memory),
        ("max_untracked_memory", 1 << 20),
        ("max_bytes_before_external_group_by", memory / 2),
        ("max_bytes_before_external_sort", memory / 2),
        ("max_threads", threads as u64),
        ("max_parsing_threads", 1),
        ("max_download_threads", 1),
        ("max_final_threads", threads as u64),
        ("max_execution_time", ANALYST_SECONDS_MAX),
        ("max_concurrent_queries_for_user", ANALYST_QUERIES_MAX),
        ("max_temporary_data_on_disk_size_for_user", ANALYST_TEMPORARY_BYTES_MAX),
        ("allow_introspection_functions", 0),
    ];
    if matches!(spec.program, super::Program::Embedded { .. }) {
        // The writer's threads go first. An older server would not know the setting, and refuse the whole file.
        limits.push(("os_threads_nice_value_query", 10));
    }
    let mut values = String::new();
    let mut constraints = String::from("<readonly><const/></readonly>");
    for (name, value) in &limits {
        let _ = write!(values, "\n      <{name}>{value}</{name}>");
        let _ = write!(constraints, "\n        <{name}><const/></{name}>");
    }
    for name in [
        "timeout_overflow_mode",
        "memory_overcommit_ratio_denominator",
        "memory_overcommit_ratio_denominator_for_user",
        "memory_usage_overcommit_max_wait_microseconds",
        "max_temporary_data_on_disk_size_for_query",
        "max_streams_to_max_threads_ratio",
        "priority",
        "workload",
    ] {
        let _ = write!(constraints, "\n        <{name}><const/></{name}>");
    }
    format!(
        "<clickhouse>
  <profiles>
    <default></default>
    <closed>
      <max_memory_usage>100000000</max_memory_usage>
      <max_threads>1</max_threads>
      <allow_introspection_functions>0</allow_introspection_functions>
    </closed>
    <analyst>
      <readonly>2</readonly>{values}
      <constraints>
        {constraints}
      </constraints>
    </analyst>
  </profiles>
  <quotas>
    <default></default>
    <closed><interval><duration>315360000</duration><queries>2</queries></interval></closed>
  </quotas>
  <users>
    <default>
      {default_password}
      <networks><ip>127.0.0.1</ip></networks>
      <profile>closed</profile>
      <quota>closed</quota>
      <grants>
        <query>GRANT SYSTEM LISTEN ON *.*</query>
        <query>GRANT SELECT ON system.numbers</query>
      </grants>
    </default>
    <{writer}>
      {writer_hash}
      <networks><ip>::/0</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
    </{writer}>
    <analyst>
      {analyst_password}
      <networks><ip>::/0</ip></networks>
      <profile>analyst</profile>
      <quota>default</quota>
      <grants>{grants}
      </grants>
    </analyst>
  </users>
</clickhouse>
",
        writer = super::WRITER,
        writer_hash = hashed(writer_password),
        analyst_password = if spec.analyst_password.is_empty() {
            "<password></password>".to_owned()
        } else {
            hashed(&spec.analyst_password)
        },
    )
}

/// Passwords are written as hashes: the server's own `file()` can read the files it was started with.
fn hashed(password: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(password.as_bytes()) {
        let _ = write!(hex, "{byte:02x}");
    }
    format!("<password_sha256_hex>{hex}</password_sha256_hex>")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_any_name_is_written_as_xml_can_hold_it() {
        let spec = ServerSpec {
            program: crate::server::Program::Clickhouse { path: "/c".into() },
            child_command: Vec::new(),
            dir: "/a & b/<c>".into(),
            backups: "/srv/b".into(),
            listen_host: "127.0.0.1".to_owned(),
            http_port: 0,
            database: "weir".to_owned(),
            analyst_password: String::new(),
            memory_bytes: 1,
        };
        let xml = config_xml(&spec, 8123);
        assert!(xml.contains("<path>/a &amp; b/&lt;c&gt;/data/</path>"), "{xml}");
        assert!(!xml.contains("& b") && !xml.contains("<c>"), "{xml}");
    }
}
