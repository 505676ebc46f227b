use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use maxminddb::{PathElement, Reader};

/// Countries of addresses, from a MaxMind database of any maker.
pub struct Countries(Option<Reader<Vec<u8>>>);

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("country database {path}: {cause} (give `ingest.mmdb` a MaxMind database, or leave it out: no countries then)")]
pub struct CountriesError {
    pub path: PathBuf,
    pub cause: String,
}

/// Where makers keep the two letters: MaxMind and DB-IP, ip-location-db, IPinfo, and MaxMind's second best.
const PLACES: [&[PathElement<'static>]; 4] = [
    &[PathElement::Key("country"), PathElement::Key("iso_code")],
    &[PathElement::Key("country_code")],
    &[PathElement::Key("country")],
    &[PathElement::Key("registered_country"), PathElement::Key("iso_code")],
];

impl Countries {
    /// Knows no country.
    pub fn none() -> Self {
        Self(None)
    }

    /// Reads the database into memory (8 MB for countries alone).
    pub fn open(path: &Path) -> Result<Self, CountriesError> {
        let reader = Reader::open_readfile(path)
            .map_err(|error| CountriesError { path: path.into(), cause: error.to_string() })?;
        Ok(Self(Some(reader)))
    }

    /// ISO 3166-1 alpha-2, upper case; empty where it is not known.
    pub fn country(&self, address: IpAddr) -> String {
        self.look_up(address).unwrap_or_default()
    }

    fn look_up(&self, address: IpAddr) -> Option<String> {
        let found = self.0.as_ref()?.lookup(address).ok()?;
        if !found.has_data() {
            return None;
        }
        PLACES.iter().find_map(|place| {
            let code: &str = found.decode_path(place).ok()??;
            let is_code = code.len() == 2 && code.bytes().all(|b| b.is_ascii_alphabetic());
            is_code.then(|| code.to_ascii_uppercase())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database with one network, 192.0.2.0/24, written by hand as the format's specification says.
    fn database(record: &[u8]) -> Vec<u8> {
        let network = [192u8, 0, 2];
        let mut bytes = Vec::new();
        let nothing = 24u32;
        let found = nothing + 16;
        for bit in 0..24u32 {
            let next = if bit == 23 { found } else { bit + 1 };
            let one = network[bit as usize / 8] >> (7 - bit % 8) & 1 == 1;
            let (left, right) = if one { (nothing, next) } else { (next, nothing) };
            bytes.extend_from_slice(&left.to_be_bytes()[1..]);
            bytes.extend_from_slice(&right.to_be_bytes()[1..]);
        }
        bytes.extend_from_slice(&[0; 16]);
        bytes.extend_from_slice(record);
        bytes.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
        bytes.push(0xe0 | 9);
        let text = |bytes: &mut Vec<u8>, text: &str| {
            bytes.push(0x40 | text.len() as u8);
            bytes.extend_from_slice(text.as_bytes());
        };
        for (name, value) in [
            ("node_count", &[0xc1, 24][..]),
            ("record_size", &[0xa1, 24]),
            ("ip_version", &[0xa1, 4]),
            ("binary_format_major_version", &[0xa1, 2]),
            ("binary_format_minor_version", &[0xa0]),
            ("build_epoch", &[0x01, 0x02, 1]),
            ("database_type", &[0x41, b'T']),
            ("description", &[0xe0]),
            ("languages", &[0x00, 0x04]),
        ] {
            // Names over 28 bytes have one more byte of length; none is here.
            assert!(name.len() < 29);
            text(&mut bytes, name);
            bytes.extend_from_slice(value);
        }
        bytes
    }

    fn look_up(record: &[u8], address: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.mmdb");
        std::fs::write(&path, database(record)).unwrap();
        Countries::open(&path).unwrap().country(address.parse().unwrap())
    }

    #[test]
    fn a_country_is_found_wherever_the_maker_keeps_it() {
        assert_eq!(look_up(b"\xe1\x4ccountry_code\x42de", "192.0.2.9"), "DE");
        assert_eq!(look_up(b"\xe1\x47country\x42NZ", "192.0.2.9"), "NZ");
        assert_eq!(look_up(b"\xe1\x47country\xe1\x48iso_code\x42FR", "192.0.2.9"), "FR");
        assert_eq!(look_up(b"\xe1\x52registered_country\xe1\x48iso_code\x42BR", "192.0.2.9"), "BR");
    }

    #[test]
    fn an_address_of_no_country_has_none() {
        assert_eq!(look_up(b"\xe1\x4ccountry_code\x42de", "192.0.3.9"), "");
        assert_eq!(look_up(b"\xe1\x4ccountry_code\x42de", "2001:db8::1"), "");
        assert_eq!(look_up(b"\xe1\x47country\x47Germany", "192.0.2.9"), "");
        assert_eq!(Countries::none().country("192.0.2.9".parse().unwrap()), "");
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_with_its_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Countries::open(file.path()).err().unwrap().to_string();
        assert!(error.starts_with(&format!("country database {}: ", file.path().display())), "{error}");
    }
}
