//! Lines of a file or of stdin, packed or not, with the hash of what was read.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::read::MultiGzDecoder;
use memchr::memchr;

use crate::line::LINE_BYTES_MAX;

/// Where lines come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    File(PathBuf),
    Stdin,
}

impl Input {
    /// `-` is stdin.
    pub(crate) fn of(path: &Path) -> Self {
        if path.as_os_str() == "-" { Input::Stdin } else { Input::File(path.into()) }
    }

    /// What it is called in messages and in the control log.
    pub(crate) fn name(&self) -> String {
        match self {
            Input::File(path) => path.display().to_string(),
            Input::Stdin => "stdin".to_owned(),
        }
    }

    /// Bytes as they lie on disk; `None` for what has no size.
    pub(crate) fn bytes(&self) -> Option<u64> {
        match self {
            Input::File(path) => path.metadata().ok().filter(|metadata| metadata.is_file()).map(|found| found.len()),
            Input::Stdin => None,
        }
    }

    /// Its bytes, unpacked if it begins as gzip does. `taken` counts what was read, packed.
    pub(crate) fn open(&self, taken: Arc<AtomicU64>) -> io::Result<Box<dyn Read>> {
        let raw: Box<dyn Read> = match self {
            Input::File(path) => Box::new(File::open(path)?),
            Input::Stdin => Box::new(io::stdin()),
        };
        unpacked(Counted { raw, taken })
    }
}

struct Counted {
    raw: Box<dyn Read>,
    taken: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.raw.read(buffer)?;
        self.taken.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

fn unpacked(mut raw: impl Read + 'static) -> io::Result<Box<dyn Read>> {
    let mut begin = Vec::with_capacity(2);
    raw.by_ref().take(2).read_to_end(&mut begin)?;
    let packed = begin == GZIP_MAGIC;
    let whole = io::Cursor::new(begin).chain(raw);
    // Several gzip streams, one behind the other, are one file: that is how logs are packed and appended.
    Ok(if packed {
        Box::new(MultiGzDecoder::new(io::BufReader::with_capacity(CHUNK_BYTES, whole)))
    } else {
        Box::new(whole)
    })
}

/// Bytes of one read.
const CHUNK_BYTES: usize = 256 * 1024;

/// Cuts bytes into lines and hashes them.
pub(crate) struct Lines<R> {
    raw: R,
    buffer: Vec<u8>,
    /// In the buffer: `hashed ≤ begin ≤ filled`. Lines up to `begin` were given.
    hashed: usize,
    begin: usize,
    filled: usize,
    hasher: blake3::Hasher,
    /// Bytes of the lines that were given, with their ends.
    bytes: u64,
    /// Whether a last line without an end is one.
    finished: bool,
    /// The beginning of the last line that was too long.
    long: Vec<u8>,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<'a> {
    /// Without its end.
    Line(&'a [u8]),
    /// Longer than [`LINE_BYTES_MAX`]: only its beginning.
    TooLong(&'a [u8]),
    /// The end; so many bytes behind the last line's end were left.
    End { left: u64 },
}

impl<R: Read> Lines<R> {
    /// `finished`: a last line without an end is taken, for nothing will be appended to it.
    pub(crate) fn new(raw: R, finished: bool) -> Self {
        Self {
            raw,
            buffer: vec![0; CHUNK_BYTES],
            hashed: 0,
            begin: 0,
            filled: 0,
            hasher: blake3::Hasher::new(),
            bytes: 0,
            finished,
            long: Vec::new(),
        }
    }

    /// Bytes of the lines that were given, with their ends.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// BLAKE3, in hex, of the lines that were given.
    pub(crate) fn blake3(&mut self) -> String {
        self.hash();
        self.hasher.finalize().to_hex().to_string()
    }

    fn hash(&mut self) {
        self.hasher.update(&self.buffer[self.hashed..self.begin]);
        self.hashed = self.begin;
    }

    pub(crate) fn next(&mut self) -> io::Result<Next<'_>> {
        let mut searched = self.begin;
        loop {
            if let Some(at) = memchr(b'\n', &self.buffer[searched..self.filled]) {
                let line = self.begin..searched + at;
                self.give(line.end + 1 - self.begin);
                let line = &self.buffer[line];
                return Ok(if line.len() > LINE_BYTES_MAX {
                    Next::TooLong(&line[..LINE_BEGINNING_BYTES])
                } else {
                    Next::Line(line)
                });
            }
            if self.filled - self.begin > LINE_BYTES_MAX {
                return self.skip_long();
            }
            searched = self.filled - self.begin;
            let ended = self.fill()? == 0;
            // Filling moved the line to the buffer's beginning.
            if ended {
                let left = self.begin..self.filled;
                if !self.finished || left.is_empty() {
                    return Ok(Next::End { left: left.len() as u64 });
                }
                self.give(left.len());
                return Ok(Next::Line(&self.buffer[left]));
            }
        }
    }

    fn give(&mut self, bytes: usize) {
        self.begin += bytes;
        self.bytes += bytes as u64;
    }

    /// Makes room behind the current line and reads into it.
    fn fill(&mut self) -> io::Result<usize> {
        self.hash();
        self.buffer.copy_within(self.begin..self.filled, 0);
        self.filled -= self.begin;
        (self.begin, self.hashed) = (0, 0);
        loop {
            match self.raw.read(&mut self.buffer[self.filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(read) => {
                    self.filled += read;
                    return Ok(read);
                }
            }
        }
    }

    /// Goes over a line that is too long, keeping only its beginning.
    fn skip_long(&mut self) -> io::Result<Next<'_>> {
        self.long = self.buffer[self.begin..self.begin + LINE_BEGINNING_BYTES].to_vec();
        self.hash();
        let (before, bytes_before) = (self.hasher.clone(), self.bytes);
        self.give(self.filled - self.begin);
        loop {
            if self.fill()? == 0 {
                if self.finished {
                    break;
                }
                let left = self.bytes - bytes_before;
                (self.hasher, self.bytes) = (before, bytes_before);
                return Ok(Next::End { left });
            }
            match memchr(b'\n', &self.buffer[..self.filled]) {
                Some(at) => {
                    self.give(at + 1);
                    break;
                }
                None => self.give(self.filled),
            }
        }
        Ok(Next::TooLong(&self.long))
    }
}

/// How much of a line that is too long is shown.
const LINE_BEGINNING_BYTES: usize = 200;
const _: () = assert!(CHUNK_BYTES > 2 * LINE_BYTES_MAX);

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;

    /// Gives a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let read = self.1.min(self.0.len()).min(buffer.len());
            buffer[..read].copy_from_slice(&self.0[..read]);
            self.0 = &self.0[read..];
            Ok(read)
        }
    }

    fn lines(raw: impl Read, finished: bool) -> (Vec<Vec<u8>>, u64, u64, String) {
        let mut lines = Lines::new(raw, finished);
        let mut all = Vec::new();
        loop {
            match lines.next().unwrap() {
                Next::Line(line) => all.push(line.to_vec()),
                Next::TooLong(beginning) => all.push([b"too long: ", beginning].concat()),
                Next::End { left } => return (all, left, lines.bytes(), lines.blake3()),
            }
        }
    }

    #[test]
    fn a_line_of_a_megabyte_is_gone_over_and_the_next_one_is_whole() {
        for long in [LINE_BYTES_MAX + 1, CHUNK_BYTES - 3, CHUNK_BYTES, 1_000_000] {
            let content = [b"a\n", &*vec![b'x'; long], b"\nb\n"].concat();
            let expected = [b"a".to_vec(), [b"too long: ", &*vec![b'x'; LINE_BEGINNING_BYTES]].concat(), b"b".to_vec()];
            let hash = blake3::hash(&content).to_hex().to_string();
            assert_eq!(lines(&*content, false), (expected.to_vec(), 0, content.len() as u64, hash), "{long}");
        }
    }

    #[test]
    fn what_is_behind_the_last_end_of_line_is_left() {
        let long = [b"a\n", &*vec![b'x'; 900_000]].concat();
        let hash = blake3::hash(b"a\n").to_hex().to_string();
        assert_eq!(lines(&b"a\nb"[..], false), (vec![b"a".to_vec()], 1, 2, hash.clone()));
        assert_eq!(lines(&*long, false), (vec![b"a".to_vec()], 900_000, 2, hash));
        assert_eq!(lines(&b"a\nb"[..], true).0, [b"a", b"b"]);
        assert_eq!(lines(&*long, true).0.len(), 2);
    }

    #[test]
    fn gzip_is_known_by_its_first_bytes_even_in_several_pieces() {
        let mut packed = Vec::new();
        for piece in ["a\nb", "\nc\n"] {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(piece.as_bytes()).unwrap();
            packed.extend(encoder.finish().unwrap());
        }
        let read = |bytes: Vec<u8>| lines(unpacked(io::Cursor::new(bytes)).unwrap(), false);
        assert_eq!(read(packed), read(b"a\nb\nc\n".to_vec()));
        assert_eq!(read(b"\x1f\n".to_vec()).0, [b"\x1f"]);
        assert_eq!(read(Vec::new()).0, Vec::<Vec<u8>>::new());
    }

    proptest! {
        #[test]
        fn lines_and_hash_do_not_depend_on_how_the_bytes_come(content in "[ab\n]{0,60}", piece in 1usize..9) {
            let whole = content.rfind('\n').map_or(0, |at| at + 1);
            let (all, left, bytes, hash) = lines(Slow(content.as_bytes(), piece), false);
            let expected: Vec<_> = content[..whole].lines().map(|line| line.as_bytes().to_vec()).collect();
            prop_assert_eq!(all, expected);
            prop_assert_eq!((left, bytes), ((content.len() - whole) as u64, whole as u64));
            prop_assert_eq!(hash, blake3::hash(&content.as_bytes()[..whole]).to_hex().to_string());
        }
    }
}
