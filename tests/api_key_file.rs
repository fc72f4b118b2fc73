//! Keys in a file: what is read, what is refused, what survives. Time is tokio's paused clock.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    unreachable_pub,
    reason = "helpers of tests are shared and panic as tests do"
)]

#[path = "api_key_file/fixture.rs"]
mod fixture;
#[path = "api_key_file/reload.rs"]
mod reload;
#[path = "api_key_file/together.rs"]
mod together;
#[path = "api_key_file/uses.rs"]
mod uses;

use std::{fs, sync::Arc};

use fixture::{AT, FORMATS, Folder, NOW, id, lookup, owner, record};
use portcullis::{
    Now, StoreErrorKind,
    api_key::{
        ApiKeyAdmin, ApiKeyStore, Cached, FileKeyStore, KeyFilter, KeyHash, KeyId, Lookup, RecordFields, Revocation,
    },
    conformance,
};

#[tokio::test]
async fn a_file_keeps_the_contract_of_its_traits() {
    for format in FORMATS {
        let folder = Folder::new(format);
        let store = folder.create();
        conformance::api_key_store(&store, AT).await;
        conformance::api_key_store(&store, AT).await;

        // Whoever reads the file has the same.
        let other: Arc<dyn ApiKeyAdmin> = Arc::new(folder.open());
        let all = |store: Arc<dyn ApiKeyAdmin>| async move {
            let mut all = Vec::new();
            loop {
                let last = all.last().map(|hit: &portcullis::api_key::Hit| *hit.record().id());
                let page = store.list(&KeyFilter::all(), last.as_ref(), 1_000).await.unwrap();
                if page.is_empty() {
                    return all;
                }
                all.extend(page);
            }
        };
        store.flush().await.unwrap();
        other.get(&id(1)).await.unwrap();
        let reread: Arc<dyn ApiKeyAdmin> = Arc::new(folder.open());
        assert_eq!(all(Arc::new(store)).await, all(reread).await, "{format}");
        conformance::api_key_store(&other, AT).await;
        conformance::api_key_store(&Cached::new(folder.open()), AT).await;
    }
}

#[test]
fn it_works_without_a_runtime_too() {
    let folder = Folder::new("toml");
    let store = folder.create();
    let done =
        std::pin::pin!(store.insert(record(1))).poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    assert!(matches!(done, std::task::Poll::Ready(Ok(()))));
    assert!(matches!(store.find_now(lookup(1)), Now::Known(Ok(Some(_)))));
    assert_eq!(folder.open().health().keys, 1);
}

#[tokio::test]
async fn what_is_not_accepted_at_the_start() {
    let folder = Folder::new("toml");
    let missing = FileKeyStore::open(folder.path()).unwrap_err().to_string();
    assert!(missing.contains("keys.toml") && missing.contains("No such file"), "{missing}");
    assert!(FileKeyStore::open(folder.path().with_extension("yaml")).unwrap_err().to_string().contains(".json"));
    assert!(FileKeyStore::create(folder.path().with_extension("")).is_err());

    let store = folder.create();
    assert!(FileKeyStore::create(folder.path()).unwrap_err().to_string().contains("exists already"));
    store.insert(record(1)).await.unwrap();
    store.insert(record(2)).await.unwrap();
    let whole = folder.text();
    for cut in [whole.len() / 3, whole.len() / 2, whole.len() - 3] {
        folder.put(&whole[..cut]);
        let error = FileKeyStore::open(folder.path()).unwrap_err().to_string();
        let line = whole[..cut].matches('\n').count() + 1;
        assert!(error.contains("keys.toml:"), "{error}");
        assert!((line - 1..=line).any(|line| error.contains(&format!("keys.toml:{line}:"))), "line {line}: {error}");
    }
    let boundary = whole.rfind("[[keys]]").unwrap();
    folder.put(&whole[..boundary]);
    let error = FileKeyStore::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("not whole"), "cut between two records: {error}");

    folder.put(&whole.replacen("subject", "colour = \"red\"\nsubject", 1));
    let error = FileKeyStore::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("keys.toml:") && error.contains("colour") && error.contains(&id(1).to_string()), "{error}");
    fs::write(folder.path(), [0xff, 0xfe]).unwrap();
    assert!(FileKeyStore::open(folder.path()).unwrap_err().to_string().contains("UTF-8"));
}

#[cfg(unix)]
#[tokio::test]
async fn the_file_is_the_owners_alone_and_nothing_is_left_beside_it() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::new("json");
    let store = folder.create();
    let mode = || fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o644)).unwrap();
    store.insert(record(1)).await.unwrap();
    assert_eq!(mode(), 0o640, "a write narrows what somebody widened, to the group that reads it");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o604)).unwrap();
    store.insert(record(3)).await.unwrap();
    assert_eq!(mode(), 0o600);
    fs::write(folder.file(".keys.json.tmp"), "what a crash left").unwrap();
    store.insert(record(2)).await.unwrap();
    let mut names: Vec<_> = fs::read_dir(folder.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["keys.json", "keys.json.lock"]);

    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(FileKeyStore::open(folder.path()).unwrap_err().to_string().contains("by everybody"));
    assert_eq!(store.reload().await.unwrap_err().kind(), StoreErrorKind::Corrupt);
    assert!(matches!(store.find_now(lookup(1)), Now::Known(Ok(Some(_)))));
}

#[cfg(unix)]
#[tokio::test]
async fn what_a_link_leads_to_is_replaced_and_the_link_stays() {
    let folder = Folder::new("toml");
    folder.create().insert(record(1)).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let link = other.path().join("linked.toml");
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    let store = FileKeyStore::open(&link).unwrap();
    store.insert(record(2)).await.unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(folder.open().health().keys, 2);
}

/// Only root can give a file away: as anybody else it is told that one's own stays one's own, and no more.
#[cfg(unix)]
#[tokio::test]
async fn a_change_leaves_the_file_to_its_owner() {
    use std::os::unix::fs::{MetadataExt, chown};

    let folder = Folder::new("toml");
    let store = folder.create();
    let uid = |name: &str| fs::metadata(folder.file(name)).unwrap().uid();
    let myself = uid("keys.toml");
    let owner = if myself == 0 { 65_534 } else { myself };
    if owner == myself {
        eprintln!("run as root, to see that what root changes stays the service's");
    }
    let _ = fs::remove_file(folder.file("keys.toml.lock"));
    chown(folder.path(), Some(owner), None).unwrap();
    store.insert(record(1)).await.unwrap();
    assert!(store.revoke(&id(1), &fixture::leaked()).await.unwrap());
    assert_eq!([uid("keys.toml"), uid("keys.toml.lock")], [owner, owner]);
}

/// A service that reads by its group reads on after root has revoked a key.
#[cfg(unix)]
#[tokio::test]
async fn a_change_leaves_the_file_to_its_group() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    let folder = Folder::new("toml");
    let store = folder.create();
    let file = || fs::metadata(folder.path()).unwrap();
    let group = if file().uid() == 0 { 65_534 } else { file().gid() };
    chown(folder.path(), None, Some(group)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o640)).unwrap();
    store.insert(record(1)).await.unwrap();
    assert!(store.revoke(&id(1), &fixture::leaked()).await.unwrap());
    assert_eq!((file().gid(), file().mode() & 0o777), (group, 0o640));
}

/// Whoever may add keys could else fill the file until nobody can read it, and nobody can revoke.
#[tokio::test]
async fn a_full_file_takes_no_key_and_can_still_be_revoked() {
    let folder = Folder::new("json");
    let text = "x".repeat(512);
    let record = |number: u32| {
        let mut bytes = [0; 10];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let mut fields =
            RecordFields::new(KeyId::from_bytes(bytes), KeyHash::from_bytes([1; 32]), "billing", NOW, None);
        fields.metadata = (0..32).map(|name| (format!("note{name}"), text.clone())).collect();
        fields
    };
    let keys: Vec<_> = (0..3_900).map(record).collect();
    let document = serde_json::json!({ "version": 1, "keys": keys });
    fs::write(folder.path(), serde_json::to_vec(&document).unwrap()).unwrap();
    let store = folder.open();
    let error = store.insert(record(3_900).check().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(error.to_string().contains("more than 67108864"), "{error}");
    assert!(store.revoke(&keys[0].id, &fixture::leaked()).await.unwrap());
    assert!(!store.reload().await.unwrap(), "what it wrote is what it reads");
    let again = store.find(Lookup::new(keys[0].id, AT)).await.unwrap().unwrap();
    assert!(again.record().revocation().is_some());
}

#[tokio::test]
async fn a_change_that_cannot_be_written_is_not_made() {
    let folder = Folder::new("toml");
    let store = folder.create();
    store.insert(record(1)).await.unwrap();
    // A folder in the place of the text that is to be renamed: also root cannot write it.
    fs::create_dir(folder.file(".keys.toml.tmp")).unwrap();
    let error = store.revoke(&id(1), &fixture::leaked()).await.unwrap_err();
    assert_eq!((error.kind(), error.backend()), (StoreErrorKind::Unavailable, "file"));
    assert!(error.to_string().contains("keys.toml"), "{error}");
    assert!(store.find(lookup(1)).await.unwrap().unwrap().record().revocation().is_none());
    assert!(store.insert(record(2)).await.is_err());
    assert!(store.find(lookup(2)).await.unwrap().is_none());
    fs::remove_dir(folder.file(".keys.toml.tmp")).unwrap();
    assert!(store.revoke(&id(1), &fixture::leaked()).await.unwrap());
    assert_eq!(folder.open().find(lookup(1)).await.unwrap(), store.find(lookup(1)).await.unwrap());
}

#[tokio::test]
async fn a_change_whose_caller_went_away_is_made() {
    let folder = Folder::new("toml");
    let store = folder.create();
    {
        let mut insert = store.insert(record(1));
        let first = insert.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        assert!(first.is_pending());
    }
    fixture::until(|| matches!(store.find_now(lookup(1)), Now::Known(Ok(Some(_))))).await;
    assert_eq!(folder.open().health().keys, 1);
}

#[tokio::test]
async fn owners_are_kept_by_the_file() {
    for format in FORMATS {
        let folder = Folder::new(format);
        let store = folder.create();
        store.insert(record(1)).await.unwrap();
        let tenant = owner().in_tenant("acme").unwrap();
        store.disable_owner(&owner(), &Revocation::new(7, "left \"us\"").unwrap()).await.unwrap();
        store.disable_owner(&tenant, &Revocation::new(8, "").unwrap()).await.unwrap();
        let other = folder.open();
        assert!(other.find(lookup(1)).await.unwrap().unwrap().owner_disabled());
        assert_eq!(other.disablement(&owner()).await.unwrap().unwrap().reason(), "left \"us\"");
        assert!(store.enable_owner(&tenant).await.unwrap());
        assert!(other.reload().await.unwrap());
        assert_eq!(other.disablement(&tenant).await.unwrap(), None);
        let text = format!("{other:?}");
        assert!(text.contains("keys: 1") && text.contains("failing: None"), "{text}");
    }
}
