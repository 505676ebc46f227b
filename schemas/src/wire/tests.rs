use proptest::prelude::*;

use super::*;
use crate::{Event, Kind};

/// Reads a batch back into events: the inverse of [`BatchBuilder`].
fn events_of(batch: &BatchView<'_>) -> Vec<Event> {
    let text =
        |column: &[u32], row: usize| batch.strings[column.get(row).map_or(0, |index| *index as usize)].to_owned();
    let mut props = batch.prop_names.iter().zip(&batch.prop_values);
    (0..batch.events)
        .map(|row| Event {
            site: text(&batch.site, row),
            kind: Kind::from_wire(batch.kind.get(row).copied().unwrap_or(0)).unwrap(),
            received_ms: batch.received_ms[row],
            claimed_ms: batch.claimed_ms.get(row).copied().filter(|claimed| *claimed != NO_CLAIM),
            visitor: batch.visitor.get(row).copied().unwrap_or(0),
            id: text(&batch.id, row),
            host: text(&batch.host, row),
            page: text(&batch.page, row),
            query: text(&batch.query, row),
            referrer: text(&batch.referrer, row),
            user_agent: text(&batch.user_agent, row),
            country: text(&batch.country, row),
            name: text(&batch.name, row),
            target: text(&batch.target, row),
            title: text(&batch.title, row),
            screen: text(&batch.screen, row),
            language: text(&batch.language, row),
            props: (0..batch.props.get(row).copied().unwrap_or(0))
                .map(|_| {
                    let (name, value) = props.next().unwrap();
                    (batch.strings[*name as usize].to_owned(), batch.strings[*value as usize].to_owned())
                })
                .collect(),
        })
        .collect()
}

fn event() -> impl Strategy<Value = Event> {
    let text = || prop_oneof![Just(String::new()), "[a-c]{1,2}", ".{0,12}"];
    let texts = proptest::collection::vec(text(), 12);
    let props = proptest::collection::vec((text(), text()), 0..4);
    let time = || prop_oneof![0i64..2_000_000_000_000, -5i64..5, Just(253_402_300_799_000), Just(-62_135_596_800_000)];
    let claim = proptest::option::of(time());
    (text(), 0u32..5, time(), claim, any::<u64>(), texts, props)
        .prop_map(|(site, kind, received_ms, claimed_ms, visitor, texts, props)| {
            let mut texts = texts.into_iter();
            let mut next = || texts.next().unwrap();
            Event {
                site,
                kind: Kind::from_wire(kind).unwrap(),
                received_ms,
                claimed_ms,
                visitor: visitor % 3,
                id: next(),
                host: next(),
                page: next(),
                query: next(),
                referrer: next(),
                user_agent: next(),
                country: next(),
                name: next(),
                target: next(),
                title: next(),
                screen: next(),
                language: next(),
                props,
            }
        })
        // A batch of no sites at all is not a batch: ingest never lets an event without a site through.
        .prop_filter("a site", |event| !event.site.is_empty())
}

fn build(events: &[Event]) -> Vec<u8> {
    let mut builder = BatchBuilder::new([7; 16], 42);
    events.iter().for_each(|event| builder.push(event));
    let at_most = builder.bytes_at_most();
    let bytes = builder.finish();
    assert!(bytes.len() <= at_most, "{} bytes, at most {at_most} were promised", bytes.len());
    bytes
}

proptest! {
    #[test]
    fn what_is_decoded_is_what_was_encoded(events in proptest::collection::vec(event(), 1..20), sent_ms in any::<i64>()) {
        let payload = batch_record(sent_ms, &build(&events));
        let record = decode(&payload).unwrap();
        prop_assert_eq!(record.sent_ms, sent_ms);
        let Content::Batch(batch) = record.content else { panic!("a batch") };
        prop_assert_eq!((batch.collector, batch.sequence), ([7; 16], 42));
        prop_assert_eq!(events_of(&batch), events);
    }

    #[test]
    fn any_bytes_give_a_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn a_record_with_bytes_changed_or_cut_never_panics(
        events in proptest::collection::vec(event(), 1..4),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut payload = batch_record(5, &build(&events));
        for (place, byte) in changes {
            let place = place.index(payload.len());
            payload[place] = byte;
        }
        payload.truncate(cut.index(payload.len()) + 1);
        let _ = decode(&payload);
    }
}

#[test]
fn a_record_that_is_cut_anywhere_is_an_error() {
    let event = Event { site: "s".into(), page: "/".into(), received_ms: 1_000, ..Event::default() };
    let payload = batch_record(5, &build(&[event]));
    // Cut inside the envelope's first field nothing is there; later the batch is shorter than it says.
    for cut in 0..payload.len() {
        assert!(decode(&payload[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn ticks_and_ends_come_back() {
    assert_eq!(decode(&tick_record(-3)), Ok(RecordView { sent_ms: -3, content: Content::Tick }));
    let end = End { events: 9, last_ms: -1, digest: u64::MAX };
    assert_eq!(decode(&end_record(8, end)), Ok(RecordView { sent_ms: 8, content: Content::End(end) }));
}

#[test]
fn a_batch_that_says_more_events_than_it_has_bytes_for_is_refused_without_room_for_them() {
    // EventBatch { events: u64::MAX } in a record.
    let mut batch = vec![3 << 3];
    batch.extend([0xff; 9]);
    batch.push(1);
    assert_eq!(decode(&batch_record(0, &batch)).unwrap_err().what, "a batch without a site for each event");
}

#[test]
fn faults_are_named() {
    let table = |strings: &[&str], site: &[u8]| {
        let mut batch = vec![3 << 3, site.len() as u8];
        for string in strings {
            batch.extend([5 << 3 | 2, string.len() as u8]);
            batch.extend(string.as_bytes());
        }
        batch.extend([10 << 3 | 2, site.len() as u8]);
        batch.extend(site);
        batch_record(0, &batch)
    };
    assert!(decode(&table(&["", "a"], &[1])).is_ok());
    assert_eq!(decode(&table(&["", "a"], &[2])).unwrap_err().what, "an index past the string table");
    assert_eq!(decode(&table(&["b", "a"], &[1])).unwrap_err().what, "a string table whose first string is not empty");
    assert_eq!(decode(b"").unwrap_err().what, "neither a batch nor a tick nor an end");
    assert_eq!(decode(&[0x80]).unwrap_err().what, "a varint that does not end");
}

#[test]
fn fields_that_are_not_known_are_skipped_and_columns_may_come_unpacked() {
    let mut batch = vec![3 << 3, 1, 5 << 3 | 2, 0, 5 << 3 | 2, 1, b's'];
    // Field 100, a varint; field 101, bytes; then the site, not packed.
    batch.extend([0xa0, 0x06, 1, 0xaa, 0x06, 2, 0, 0]);
    batch.extend([10 << 3, 1]);
    let payload = batch_record(0, &batch);
    let Content::Batch(batch) = decode(&payload).unwrap().content else { panic!("a batch") };
    assert_eq!(events_of(&batch), [Event { site: "s".into(), ..Event::default() }]);
}
