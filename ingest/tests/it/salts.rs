use std::sync::Arc;

use bytes::Bytes;
use weir_ingest::SaltBook;
use weir_schemas::control::SALTS_TOPIC;

use crate::support::{NOON_MS, TestClock, log, payloads};

const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;

#[tokio::test]
async fn all_books_agree_on_the_first_salt_of_a_day() {
    let clock = TestClock::at(NOON_MS);
    let inner = log(&clock);
    let open = || SaltBook::open(inner.log.clone(), Arc::new(clock.clone()));
    let books = futures::future::join_all((0..8).map(|_| open())).await;
    let mut salts = Vec::new();
    for book in books {
        salts.push(book.unwrap().at(NOON_MS).await.unwrap());
    }
    assert!(salts.iter().all(|salt| *salt == salts[0]));
    let written = payloads(&*inner.log, SALTS_TOPIC, 0).len();
    let book = open().await.unwrap();
    assert_eq!(book.at(NOON_MS).await.unwrap(), salts[0]);
    assert_eq!(payloads(&*inner.log, SALTS_TOPIC, 0).len(), written, "a restart writes none");
}

#[tokio::test]
async fn the_next_day_is_prepared_an_hour_ahead() {
    let clock = TestClock::at(NOON_MS);
    let inner = log(&clock);
    let book = SaltBook::open(inner.log.clone(), Arc::new(clock.clone())).await.unwrap();
    let today = NOON_MS / DAY_MS;
    book.tend().await.unwrap();
    assert_eq!(book.days(), [today]);
    clock.advance(11 * HOUR_MS + 1);
    book.tend().await.unwrap();
    assert_eq!(book.days(), [today, today + 1]);
    assert!(book.at(NOON_MS).await.unwrap() != book.at(NOON_MS + DAY_MS).await.unwrap());
}

#[tokio::test]
async fn a_salt_is_forgotten_two_days_after_its_day_began() {
    let clock = TestClock::at(NOON_MS);
    let inner = log(&clock);
    let book = SaltBook::open(inner.log.clone(), Arc::new(clock.clone())).await.unwrap();
    let today = NOON_MS / DAY_MS;
    clock.advance(DAY_MS);
    book.tend().await.unwrap();
    assert!(book.days().contains(&today));
    clock.advance(DAY_MS);
    book.tend().await.unwrap();
    assert!(!book.days().contains(&today));
}

#[tokio::test]
async fn a_record_that_is_no_salt_is_passed_over() {
    let clock = TestClock::at(NOON_MS);
    let inner = log(&clock);
    SaltBook::open(inner.log.clone(), Arc::new(clock.clone())).await.unwrap();
    inner.log.append(SALTS_TOPIC, 0, Bytes::from_static(b"{\"day\":"), None).await.unwrap();
    clock.advance(DAY_MS);
    let book = SaltBook::open(inner.log.clone(), Arc::new(clock.clone())).await.unwrap();
    assert!(book.days().contains(&(NOON_MS / DAY_MS + 1)));
}
