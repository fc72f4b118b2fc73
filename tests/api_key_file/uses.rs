//! Last uses are told at once and written now and then.

use std::time::Duration;

use portcullis::api_key::{ApiKeyAdmin, FileKeyStore, KeyUse, LastUse};

use super::fixture::{FORMATS, Folder, Heard, NOW, id, leaked, looked, record};

fn used(number: u8, seconds: u64) -> KeyUse {
    KeyUse::new(id(number), LastUse::new(NOW + seconds, Some([198, 51, 100, 7].into())))
}

async fn last(store: &FileKeyStore, number: u8) -> Option<u64> {
    store.get(&id(number)).await.unwrap().unwrap().record().last_used().map(|last| last.at() - NOW)
}

#[tokio::test(start_paused = true)]
async fn they_are_written_once_a_minute() {
    let folder = Folder::new("toml");
    let store = folder.create();
    store.insert(record(1)).await.unwrap();
    let heard = Heard::of(&store);
    for second in 1..=59 {
        store.record_uses(&[used(1, second), used(2, second)]).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::task::yield_now().await;
        assert_eq!(last(&store, 1).await, Some(second));
        assert!(!folder.text().contains("last_used"), "second {second}");
    }
    let written = format!("at = {}", NOW + 59);
    looked(|| folder.text().contains(&written)).await;
    assert_eq!(heard.take(), [], "a use is not a change");
    assert!(!folder.text().contains(&id(2).to_string()), "nor does it make a key");
}

#[tokio::test]
async fn they_are_written_by_a_flush_and_with_the_next_change() {
    for format in FORMATS {
        let folder = Folder::new(format);
        let store = folder.create();
        store.insert(record(1)).await.unwrap();
        store.record_uses(&[used(1, 5)]).await.unwrap();
        assert_eq!(last(&folder.open(), 1).await, None);
        store.flush().await.unwrap();
        assert_eq!(last(&folder.open(), 1).await, Some(5));
        store.record_uses(&[used(1, 3)]).await.unwrap();
        store.record_uses(&[used(1, 9)]).await.unwrap();
        store.insert(record(2)).await.unwrap();
        assert_eq!(last(&folder.open(), 1).await, Some(9));
        store.revoke(&id(1), &leaked()).await.unwrap();
        assert_eq!(last(&folder.open(), 1).await, Some(9));
    }
}

#[tokio::test]
async fn two_processes_keep_the_later_one() {
    let folder = Folder::new("toml");
    let (ours, theirs) = (folder.create(), folder.open());
    ours.insert(record(1)).await.unwrap();
    theirs.reload().await.unwrap();
    let heard = Heard::of(&theirs);
    ours.record_uses(&[used(1, 7)]).await.unwrap();
    theirs.record_uses(&[used(1, 5)]).await.unwrap();
    ours.flush().await.unwrap();
    theirs.flush().await.unwrap();
    assert_eq!((last(&ours, 1).await, last(&theirs, 1).await), (Some(7), Some(7)));
    assert_eq!(last(&folder.open(), 1).await, Some(7));
    assert_eq!(heard.take(), [], "a use that another process wrote is no change either");
}
