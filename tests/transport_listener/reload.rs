//! A new certificate while the listener serves.

use std::{path::Path, time::Duration};

use portcullis::tls::ServerCertificate;

use crate::{
    CLIENT, Server, http1, say, serve, serve_with,
    support::certs::{Authority, Issued},
};

fn write(folder: &Path, issued: &Issued) {
    std::fs::write(folder.join("server.crt"), &issued.pem).unwrap();
    std::fs::write(folder.join("server.key"), &issued.key).unwrap();
}

/// A server with a certificate of this authority, and the folder with its files.
async fn serve_files(authority: &Authority) -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &authority.server(&["localhost"]));
    let files = ["server.crt", "server.key"].map(|name| folder.path().join(name));
    let certificate = ServerCertificate::from_pem_files(&files[0], &files[1]).unwrap();
    let server = serve_with(certificate, authority, |listener| listener).await;
    (folder, server)
}

#[tokio::test]
async fn a_new_certificate_drops_no_connection() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let (folder, mut server) = serve_files(&first).await;

    let mut open = http1(server.connect(&CLIENT).await.unwrap()).await.unwrap();
    assert!(say(&mut open).await.is_some());
    assert!(!server.reloader.reload().unwrap(), "the files hold the same");

    write(folder.path(), &second.server(&["localhost"]));
    assert!(server.reloader.reload().unwrap());
    assert!(say(&mut open).await.is_some(), "the old connection lives");
    assert!(server.ask(&CLIENT).await.is_none(), "the new certificate is of another authority");
    server.roots = vec![second.pem.clone()];
    assert!(server.ask(&CLIENT).await.is_some());

    for (name, file, text) in [
        ("half of a pair", "server.key", first.server(&["localhost"]).key),
        ("no PEM", "server.crt", "nothing".to_owned()),
        ("no file", "server.crt", String::new()),
    ] {
        let kept = std::fs::read(folder.path().join(file)).unwrap();
        std::fs::write(folder.path().join(file), &text).unwrap();
        if text.is_empty() {
            std::fs::remove_file(folder.path().join(file)).unwrap();
        }
        let error = server.reloader.reload().unwrap_err();
        assert!(error.value().ends_with(file), "{name}: {error}");
        assert!(server.ask(&CLIENT).await.is_some(), "{name}: the old one is served on");
        std::fs::write(folder.path().join(file), kept).unwrap();
    }
    server.reloader.replace(first.server(&["localhost"]).for_server());
    server.roots = vec![first.pem];
    assert!(server.ask(&CLIENT).await.is_some(), "handed over in memory");
}

#[tokio::test]
async fn a_certificate_from_memory_has_no_files_to_read_again() {
    let server = serve(|listener| listener).await;
    assert_eq!(server.reloader.reload().unwrap_err().setting(), "certificate reload");
    let error = server.reloader.clone().reload_every(Duration::from_secs(1)).unwrap_err().to_string();
    assert!(error.contains("has no file to look at"), "{error}");
}

#[tokio::test]
async fn files_are_read_again_at_an_interval() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let (folder, mut server) = serve_files(&first).await;
    for (period, shown) in [(Duration::ZERO, "0ns"), (Duration::from_secs(86_401), "86401s")] {
        let error = server.reloader.clone().reload_every(period).unwrap_err().to_string();
        assert_eq!(error, format!("certificate reload: {shown} must be 10 ms to a day"));
    }
    let reloader = server.reloader.clone();
    let elsewhere = std::thread::spawn(move || reloader.reload_every(Duration::from_secs(1)).unwrap_err().to_string());
    let error = elsewhere.join().unwrap();
    assert!(error.contains("needs a tokio runtime"), "{error}");
    server.reloader.clone().reload_every(Duration::from_millis(20)).unwrap();
    write(folder.path(), &second.server(&["localhost"]));
    server.roots = vec![second.pem];
    // A real task reads real files: asked again until it did, at most for ten seconds.
    let reloaded = tokio::time::timeout(Duration::from_secs(10), async {
        while server.ask(&CLIENT).await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(reloaded.await.is_ok());
}

/// The certificate would end, and nobody would know before.
#[tokio::test]
async fn a_reload_that_fails_or_went_with_its_runtime_can_be_seen() {
    let authority = Authority::new("first");
    let (folder, server) = serve_files(&authority).await;
    let reloader = &server.reloader;
    let every = |runtime: &tokio::runtime::Runtime| {
        let _inside = runtime.enter();
        reloader.clone().reload_every(Duration::from_secs(3600))
    };
    let blind = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = every(&blind).unwrap_err().to_string();
    assert!(error.contains("timer") && reloader.failing().is_none(), "{error}");
    blind.shutdown_background();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (first, second) = (runtime(), runtime());
    every(&first).unwrap();
    assert_eq!(reloader.failing(), None);
    first.shutdown_background();
    assert!(reloader.failing().unwrap().contains("nobody looks"));
    every(&second).unwrap();
    assert_eq!(reloader.failing(), None);
    std::fs::write(folder.path().join("server.crt"), "nonsense").unwrap();
    assert_eq!(reloader.reload().unwrap_err().to_string(), reloader.failing().unwrap());
    write(folder.path(), &authority.server(&["localhost"]));
    reloader.reload().unwrap();
    assert_eq!(reloader.failing(), None);
    second.shutdown_background();
}

#[tokio::test]
async fn what_was_put_by_hand_stays_until_the_files_change() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let (folder, mut server) = serve_files(&first).await;

    server.reloader.replace(second.server(&["localhost"]).for_server());
    server.roots = vec![second.pem];
    assert!(!server.reloader.reload().unwrap(), "the files hold what they held");
    assert!(server.ask(&CLIENT).await.is_some(), "and do not undo it");

    write(folder.path(), &first.server(&["localhost"]));
    assert!(server.reloader.reload().unwrap());
    server.roots = vec![first.pem];
    assert!(server.ask(&CLIENT).await.is_some(), "a newer one of the files counts");
}

/// Each opening of a pipe reads what one opening for writing wrote, so that each look at the files meets the next pair.
#[cfg(unix)]
#[tokio::test]
async fn a_chain_that_is_being_written_is_read_again() {
    let authority = Authority::new("first");
    let (old, new) = (authority.server(&["localhost"]), authority.server(&["localhost"]));
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = (folder.path().join("server.crt"), folder.path().join("server.key"));
    let made = std::process::Command::new("mkfifo").args([&chain, &key]).status().unwrap();
    assert!(made.success());
    let whole = format!("{}{}", new.pem, authority.pem);
    let looks = [(old.pem, old.key), (new.pem, new.key.clone()), (whole.clone(), new.key.clone()), (whole, new.key)];
    let writer = std::thread::spawn({
        let (chain, key) = (chain.clone(), key.clone());
        move || {
            for look in looks {
                std::fs::write(&chain, look.0).unwrap();
                std::fs::write(&key, look.1).unwrap();
            }
        }
    });
    let certificate = ServerCertificate::from_pem_files(&chain, &key).unwrap();
    let server = serve_with(certificate, &authority, |listener| listener).await;
    assert!(server.reloader.reload().unwrap());
    let stream = server.connect(&CLIENT).await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap().len(), 2, "not the half that was there first");
    writer.join().unwrap();
}
