//! Field numbers of `proto/weir.proto`, and protobuf's zigzag.

pub(super) const RECORD_SENT_MS: u32 = 1;
pub(super) const RECORD_BATCH: u32 = 2;
pub(super) const RECORD_TICK: u32 = 3;
pub(super) const RECORD_END: u32 = 4;

pub(super) const END_EVENTS: u32 = 1;
pub(super) const END_LAST_MS: u32 = 2;
pub(super) const END_DIGEST: u32 = 3;

pub(super) const COLLECTOR: u32 = 1;
pub(super) const SEQUENCE: u32 = 2;
pub(super) const EVENTS: u32 = 3;
pub(super) const BASE_MS: u32 = 4;
pub(super) const STRINGS: u32 = 5;
pub(super) const RECEIVED: u32 = 6;
pub(super) const CLAIM: u32 = 7;
pub(super) const VISITOR: u32 = 8;
pub(super) const KIND: u32 = 9;
pub(super) const SITE: u32 = 10;
pub(super) const ID: u32 = 11;
pub(super) const HOST: u32 = 12;
pub(super) const PAGE: u32 = 13;
pub(super) const QUERY: u32 = 14;
pub(super) const REFERRER: u32 = 15;
pub(super) const USER_AGENT: u32 = 16;
pub(super) const COUNTRY: u32 = 17;
pub(super) const NAME: u32 = 18;
pub(super) const TARGET: u32 = 19;
pub(super) const TITLE: u32 = 20;
pub(super) const SCREEN: u32 = 21;
pub(super) const LANGUAGE: u32 = 22;
pub(super) const PROPS: u32 = 23;
pub(super) const PROP_NAMES: u32 = 24;
pub(super) const PROP_VALUES: u32 = 25;

pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const BYTES: u32 = 2;
pub(super) const FIXED32: u32 = 5;

pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

pub(super) fn unzigzag(number: u64) -> i64 {
    ((number >> 1) as i64) ^ -((number & 1) as i64)
}
