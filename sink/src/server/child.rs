//! The process that ClickHouse runs in. It ends with the process that started it, whatever ended that one.

use std::ffi::{CString, OsStr, c_char, c_int, c_void};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::confine;

/// What a caller passes to [`child_main`], as the words after the hidden subcommand.
pub(super) const EMBEDDED: &str = "embedded";
pub(super) const PROGRAM: &str = "program";

/// Exit status of a child whose parent has gone.
const ORPHANED: i32 = 70;
/// Exit status of a child that could not begin, with the reason on stderr.
const CANNOT_START: i32 = 71;

/// Opens the listener, then sleeps for ever: the server lives as long as this does.
const SERVE: &str = "SYSTEM START LISTEN HTTP; SELECT sleepEachRow(3) FROM system.numbers \
     SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 10000000 FORMAT Null";

/// The whole life of the process that `weir clickhouse KIND PATH DIR BACKUPS` is: runs the server that `DIR` configures
/// until stdin ends, which it does when the process that started it is gone, even by SIGKILL. Call it before any thread
/// runs.
///
/// `KIND` is `embedded` (`PATH` is libchdb.so) or `program` (`PATH` is the `clickhouse` program); copies go to `BACKUPS`. Not
/// for people: [`super::Server`] starts it.
pub fn child_main(kind: &OsStr, path: &Path, dir: &Path, backups: &Path) -> ! {
    if kind == EMBEDDED { embedded(path, dir, backups) } else { program(path, dir) }
}

fn embedded(lib: &Path, dir: &Path, backups: &Path) -> ! {
    // Before any thread: the rules hold for the threads and processes that come after them.
    if let Err(why) = confine::to(lib, [dir, backups]) {
        // Onto a full disk it is not said.
        let _ = writeln!(
            std::io::stderr(),
            "weir: clickhouse is not confined: {why}; its analyst can read what this user can read"
        );
    }
    end_with_stdin(|| {});
    let args = [
        "clickhouse".to_owned(),
        format!("--config-file={}", dir.join("config.xml").display()),
        format!("--path={}", dir.join("data").display()),
        format!("--query={SERVE}"),
    ];
    let args: Vec<CString> = args.into_iter().map(|arg| CString::new(arg).expect("paths hold no NUL")).collect();
    let mut argv: Vec<*mut c_char> = args.iter().map(|arg| arg.as_ptr().cast_mut()).collect();
    argv.push(std::ptr::null_mut());
    // SAFETY: libchdb is loaded for its initialisers' documented use, `chdb_query_cmdline` has this signature
    // (chdb.h), and `args` outlives the call.
    unsafe {
        let library = match libloading::Library::new(lib) {
            Ok(library) => library,
            Err(why) => refuse(&format!("cannot load {}: {why}", lib.display())),
        };
        let run =
            match library.get::<unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut c_void>(b"chdb_query_cmdline") {
                Ok(run) => run,
                Err(why) => refuse(&format!("{} is not libchdb: {why}", lib.display())),
            };
        run(c_int::try_from(args.len()).expect("a handful"), argv.as_mut_ptr());
    }
    refuse("the server has ended by itself")
}

fn program(path: &Path, dir: &Path) -> ! {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(path);
    command.arg("server").arg("--config-file").arg(dir.join("config.xml")).stdin(Stdio::null());
    // SAFETY: prctl is async-signal-safe. The thread that forks is the main thread, which lives as long as we do.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let mut server = match command.spawn() {
        Ok(server) => server,
        Err(why) => refuse(&format!("cannot start {}: {why}", path.display())),
    };
    let pid = server.id();
    // SAFETY: the pid is our child's, which has not been waited for.
    end_with_stdin(move || unsafe {
        libc::kill(pid.cast_signed(), libc::SIGKILL);
    });
    match server.wait() {
        Ok(status) => refuse(&format!("{} ended: {status}", path.display())),
        Err(why) => refuse(&format!("lost {}: {why}", path.display())),
    }
}

/// Ends this process when stdin does. Without any farewell: what was acknowledged is on disk.
fn end_with_stdin(last: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        last();
        // SAFETY: `_exit` runs nothing of ours or of ClickHouse's.
        unsafe { libc::_exit(ORPHANED) }
    });
}

fn refuse(why: &str) -> ! {
    eprintln!("weir: {why}");
    // SAFETY: as above; ClickHouse's own destructors at exit can hang.
    unsafe { libc::_exit(CANNOT_START) }
}

/// The words that make `child_main` out of a command line.
pub(super) fn words<'a>(kind: &'a str, path: &'a Path, dir: &'a Path, backups: &'a Path) -> [&'a OsStr; 4] {
    [OsStr::new(kind), path.as_os_str(), dir.as_os_str(), backups.as_os_str()]
}
