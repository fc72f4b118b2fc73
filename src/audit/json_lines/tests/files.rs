//! Files that are rotated, renamed and removed.

use std::{fs, path::Path};

use super::*;
use crate::audit::json_lines::rotated::rotated_files;

const DAY: u64 = 24 * 60 * 60 * 1_000_000_000;

/// A file a day, which goes after 90 of them.
fn daily() -> Rotation {
    Rotation {
        every: Some(Duration::from_nanos(DAY)),
        keep_for: Some(Duration::from_nanos(90 * DAY)),
        ..Rotation::default()
    }
}

#[cfg(unix)]
#[test]
fn a_link_stays_and_the_file_that_it_leads_to_is_rotated() {
    let (links, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (link, file) = (links.path().join("audit.jsonl"), disk.path().join("orders.jsonl"));
    std::fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let mut target =
        TargetFile::open(link.clone(), Rotation { size: Some(1), keep_files: Some(2), ..Rotation::default() }, false)
            .unwrap();
    let mut lines = Lines::new(target.torn());
    for path in ["/0", "/1", "/2", "/3"] {
        let written = lines.write(&[sample(path).into()], 0, SystemClock.now(), false, &mut target);
        assert_eq!(written.lost, 0);
    }
    assert_eq!(std::fs::read_link(&link).unwrap(), file);
    assert_eq!(std::fs::read_dir(links.path()).unwrap().count(), 1, "nothing stands beside the link");
    let kept = rotated_files(&file.canonicalize().unwrap()).unwrap();
    let paths: Vec<_> = kept.iter().chain([&file]).flat_map(|file| told(&std::fs::read(file).unwrap())).collect();
    assert_eq!(paths, ["/1", "/2", "/3"], "the oldest is gone, and it is the first file");
}

#[test]
fn files_are_rotated_by_time_and_old_ones_go() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let rotation = Rotation {
        every: Some(Duration::from_nanos(DAY)),
        keep_for: Some(Duration::from_nanos(3 * DAY)),
        keep_files: Some(3),
        ..Rotation::default()
    };
    let mut target = TargetFile::open(path.clone(), rotation, true).unwrap();
    let mut lines = Lines::new(0);
    let today = SystemClock.now().unix_nanos() / DAY * DAY;
    for (name, at, files) in [
        ("today", 0, 0),
        ("later today", DAY - 1, 0),
        ("tomorrow", DAY, 1),
        ("the day after", 2 * DAY, 2),
        ("the third day", 3 * DAY + 5, 3),
        ("the fourth", 4 * DAY + 9, 3),
        ("set back", 2 * DAY, 3),
        ("and on", 3 * DAY, 3),
        ("long after", 40 * DAY, 1),
    ] {
        let newest = rotated_files(&path).unwrap().pop();
        let now = Instants::new(today + at, at);
        let written = lines.write(&[sample("/").into()], 0, now, false, &mut target);
        assert!(written.failure.is_none(), "{name}");
        let left = rotated_files(&path).unwrap();
        assert_eq!(left.len(), files, "{name}");
        assert!(
            files == 0 || left.last() > newest.as_ref(),
            "{name}: the one that was just closed is the last, and there"
        );
    }
}

/// Whoever can set the clock must not remove the trail with one step.
#[test]
fn a_clock_that_is_set_ahead_makes_nothing_old_for_a_day() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let every = Some(Duration::from_nanos(DAY));
    let rotation = Rotation { every, keep_for: Some(Duration::from_nanos(90 * DAY)), ..Rotation::default() };
    let mut target = TargetFile::open(path.clone(), rotation, false).unwrap();
    let mut lines = Lines::new(0);
    let today = SystemClock.now().unix_nanos() / DAY * DAY;
    for (name, at, passed, files) in [
        ("today", 0, 0, 0),
        ("tomorrow", DAY, DAY, 1),
        ("the day after", 2 * DAY, 2 * DAY, 2),
        ("a year ahead, at once", 367 * DAY, 2 * DAY + 1, 3),
        ("right again", 2 * DAY + 2, 2 * DAY + 2, 4),
        ("a year ahead once more", 367 * DAY, 2 * DAY + 3, 5),
        ("and a day later still so", 368 * DAY + 4, 3 * DAY + 4, 4),
    ] {
        let now = Instants::new(today + at, passed);
        assert!(lines.write(&[sample("/").into()], 0, now, false, &mut target).failure.is_none(), "{name}");
        assert_eq!(rotated_files(&path).unwrap().len(), files, "{name}");
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_neither_rotated_nor_synchronised() {
    let open = |rotation: Rotation, syncs| TargetFile::open("/dev/null".into(), rotation, syncs);
    assert!(open(Rotation::default(), false).is_ok());
    for (rotation, syncs) in [
        (Rotation::default(), true),
        (Rotation { size: Some(1), ..Rotation::default() }, false),
        (Rotation { every: Some(Duration::from_secs(1)), ..Rotation::default() }, false),
    ] {
        let error = open(rotation, syncs).err().unwrap().to_string();
        assert!(error.contains("/dev/null") && error.contains("no regular file"), "{error}");
    }
}

/// Their names follow the one of a clock that was ahead; they go all the same.
#[test]
fn files_after_a_clock_that_was_ahead_go_when_they_are_old() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let every = Some(Duration::from_nanos(DAY));
    let rotation = Rotation { every, keep_for: Some(Duration::from_nanos(3 * DAY)), ..Rotation::default() };
    let mut target = TargetFile::open(path.clone(), rotation, false).unwrap();
    let mut lines = Lines::new(0);
    let today = SystemClock.now().unix_nanos() / DAY * DAY;
    for (name, at, passed, files) in [
        ("today", 0, 0, 0),
        ("ten years ahead", 3_650 * DAY, DAY, 1),
        ("mended", DAY, DAY + 1, 2),
        ("and on", 2 * DAY, 2 * DAY + 2, 3),
        ("five days later", 7 * DAY, 7 * DAY, 1),
    ] {
        let now = Instants::new(today + at, passed);
        assert!(lines.write(&[sample("/").into()], 0, now, false, &mut target).failure.is_none(), "{name}");
        assert_eq!(rotated_files(&path).unwrap().len(), files, "{name}");
    }
}

/// Who renames the file has another one begun, and the next rotation must know of the step all the same.
#[test]
fn a_clock_that_is_set_ahead_makes_nothing_old_where_somebody_renames_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let mut target = TargetFile::open(path.clone(), daily(), false).unwrap();
    let mut lines = Lines::new(0);
    let today = SystemClock.now().unix_nanos() / DAY * DAY;
    for (name, at, passed, files) in [
        ("today", 0, 0, 0),
        ("tomorrow", DAY, DAY, 1),
        ("the day after", 2 * DAY, 2 * DAY, 2),
        ("a year ahead, and begun anew", 367 * DAY, 2 * DAY + 1, 2),
        ("rotated within a day", 368 * DAY, 3 * DAY, 3),
        ("and later", 369 * DAY, 4 * DAY, 2),
    ] {
        if name.contains("anew") {
            fs::rename(&path, directory.path().join("aside")).unwrap();
        }
        let now = Instants::new(today + at, passed);
        assert!(lines.write(&[sample("/").into()], 0, now, false, &mut target).failure.is_none(), "{name}");
        assert_eq!(rotated_files(&path).unwrap().len(), files, "{name}");
    }
}

/// A machine that comes up with a clock that is years ahead, as far as anybody can tell by the last record.
#[test]
fn a_trail_that_was_silent_for_long_is_not_removed_by_a_restart() {
    let now = SystemClock.now();
    let ago = |days: u64| std::time::UNIX_EPOCH + Duration::from_nanos(now.unix_nanos() - days * DAY);
    for (name, in_the_file, days, files) in [
        ("a year", "{}\n", 365, 4),
        ("eight days", "{}\n", 8, 4),
        ("yesterday", "{}\n", 1, 2),
        ("a year, and just rotated", "", 365, 3),
        ("yesterday, and just rotated", "", 1, 1),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let write = |path: &Path, text: &str| {
            fs::write(path, text).unwrap();
            fs::File::options().write(true).open(path).unwrap().set_modified(ago(days)).unwrap();
        };
        write(&path, in_the_file);
        for day in 1..=2 {
            let name = format!("audit.jsonl.2020010{day}T000000.000000000");
            write(&directory.path().join(name), "{}\n");
        }
        let rotation = Rotation { size: Some(1), ..daily() };
        let mut target = TargetFile::open(path.clone(), rotation, false).unwrap();
        let mut lines = Lines::new(target.torn());
        for _ in 0..2 {
            let written = lines.write(&[sample("/").into()], 0, SystemClock.now(), false, &mut target);
            assert!(written.failure.is_none(), "{name}");
        }
        assert_eq!(rotated_files(&path).unwrap().len(), files, "{name}");
    }
}

/// What counts as written must be found again.
#[cfg(unix)]
#[test]
fn what_becomes_no_regular_file_is_not_taken() {
    for (name, rotation) in
        [("rotated", Rotation { size: Some(1 << 20), ..Rotation::default() }), ("plain", Rotation::default())]
    {
        for (what, put) in [
            ("a device", (|path| std::os::unix::fs::symlink("/dev/null", path).unwrap()) as fn(&Path)),
            ("a pipe that nobody reads", |path| {
                assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
            }),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let (path, aside) = (directory.path().join("audit.jsonl"), directory.path().join("aside"));
            let mut target = TargetFile::open(path.clone(), rotation, false).unwrap();
            let mut lines = Lines::new(0);
            let mut write = || lines.write(&[sample("/").into()], 0, SystemClock.now(), false, &mut target);
            assert!(write().failure.is_none(), "{name}, {what}");
            fs::rename(&path, &aside).unwrap();
            put(&path);
            assert!(write().failure.is_none(), "{name}, {what}: the one that was renamed is written on");
            assert_eq!(fs::read_to_string(&aside).unwrap().lines().count(), 2, "{name}, {what}");
            fs::remove_file(&aside).unwrap();
            assert_eq!(write().lost, 1, "{name}, {what}: nobody would find it");
            fs::remove_file(&path).unwrap();
            assert!(write().failure.is_none(), "{name}, {what}: it is begun anew");
            assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1, "{name}, {what}");
        }
    }
}
