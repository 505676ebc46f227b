//! What the embedded server's process may touch, by Landlock.
//!
//! `clickhouse-local` lets anybody who may SELECT call the scalar function `file('/etc/passwd')`: no grant forbids it
//! (seen on 26.7; a `clickhouse server` keeps it inside `user_files_path`). So the process itself is confined: it can
//! read the libraries and a few system files, and write its own directories. Where the kernel has no Landlock (before
//! 5.13, or where a container forbids it) the caller says so aloud.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
/// Every right on files that ABI 1 knows: bits 0 to 12.
const ALL_V1: u64 = (1 << 13) - 1;
/// Those that may be granted on something that is not a directory.
const ON_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE;

const READ: u64 = EXECUTE | READ_FILE | READ_DIR;
const READ_WRITE_DEVICE: u64 = READ_FILE | WRITE_FILE;

#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
}

#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

/// From now on this process, and all threads and processes that it starts, can open only what the server needs.
///
/// Errors: in words, when the kernel cannot, or refuses.
pub(super) fn to(lib: &Path, writable: [&Path; 2]) -> Result<(), String> {
    // SAFETY: asks for the version only.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, 1u32) };
    if abi < 1 {
        return Err(format!("no Landlock in this kernel ({})", std::io::Error::last_os_error()));
    }
    let mut handled = ALL_V1;
    if abi >= 2 {
        handled |= REFER;
    }
    if abi >= 3 {
        handled |= TRUNCATE;
    }
    let attr = RulesetAttr { handled_access_fs: handled };
    // SAFETY: `attr` is the first version of the struct, and its size says so.
    let ruleset =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size_of::<RulesetAttr>(), 0u32) };
    if ruleset < 0 {
        return Err(format!("landlock_create_ruleset: {}", std::io::Error::last_os_error()));
    }
    let ruleset = i32::try_from(ruleset).map_err(|_| "landlock gave no file descriptor".to_owned())?;
    for dir in writable {
        allow(ruleset, dir, handled)?;
    }
    allow(ruleset, lib, READ)?;
    for path in [
        "/lib",
        "/lib64",
        "/usr/lib",
        "/usr/lib64",
        "/usr/share/zoneinfo",
        "/etc/ld.so.cache",
        "/etc/localtime",
        "/etc/timezone",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/etc/nsswitch.conf",
        "/etc/host.conf",
        "/proc/self",
        "/proc/meminfo",
        "/proc/cpuinfo",
        "/proc/stat",
        "/proc/loadavg",
        "/proc/uptime",
        "/proc/sys",
        "/sys/devices/system",
        "/sys/fs/cgroup",
        "/dev/urandom",
    ] {
        allow_if_there(ruleset, Path::new(path), READ)?;
    }
    allow_if_there(ruleset, Path::new("/dev/null"), READ_WRITE_DEVICE)?;
    // SAFETY: plain calls; after the first, this process gains nothing from setuid programs, which it does not start.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0u32) == 0
    };
    if !done {
        return Err(format!("landlock_restrict_self: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: ours, and not used again.
    unsafe { libc::close(ruleset) };
    Ok(())
}

fn allow_if_there(ruleset: i32, path: &Path, access: u64) -> Result<(), String> {
    if path.exists() { allow(ruleset, path, access) } else { Ok(()) }
}

fn allow(ruleset: i32, path: &Path, access: u64) -> Result<(), String> {
    let failed = || format!("landlock rule for {}: {}", path.display(), std::io::Error::last_os_error());
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| format!("{} holds a NUL", path.display()))?;
    // SAFETY: `name` is a C string; O_PATH opens nothing for reading.
    let fd = unsafe { libc::open(name.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(failed());
    }
    let allowed_access = if path.is_dir() { access } else { access & ON_FILES };
    let rule = PathBeneathAttr { allowed_access, parent_fd: fd };
    // SAFETY: `rule` is the struct of LANDLOCK_RULE_PATH_BENEATH (1); the descriptor is ours.
    let added = unsafe {
        let added = libc::syscall(libc::SYS_landlock_add_rule, ruleset, 1u32, &raw const rule, 0u32);
        libc::close(fd);
        added
    };
    if added == 0 { Ok(()) } else { Err(failed()) }
}
