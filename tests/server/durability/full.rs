//! A disk that is really full, and one that is really read-only: a file system in memory, in a mount namespace of its own. Takes
//! root, as the network test does.

use std::process::Command;

use super::*;
use crate::support::entries::verify;
use crate::support::process::{Process, stderr};

/// Runs a command in the mount namespace of a process.
fn inside(process: &Process, command: &[&str]) -> bool {
    let id = process.id().to_string();
    let done = Command::new("nsenter").args(["--target", &id, "--mount"]).args(command).output().unwrap();
    done.status.success()
}

#[test]
fn a_disk_that_is_really_full_denies_and_goes_on_once_there_is_room() {
    let setup = logged("fsync").set("audit", "checkpoint_entries", 16);
    let log = setup.log();
    std::fs::create_dir(&log).unwrap();
    let mount = format!("mount -t tmpfs -o size=2m tmpfs '{}' && exec \"$@\"", log.display());
    let process = Process::serve_behind(setup, &["unshare", "--mount", "sh", "-c", &mount, "sh"]);
    let client = process.client();
    client.check(&Ask::permitted()).assert_permit();
    let ballast = format!("{}/ballast", log.display());
    let _until_it_is_full = inside(&process, &["dd", "if=/dev/zero", &format!("of={ballast}"), "bs=4k"]);
    let mut permits = 1;
    let denied = eventually("a denial", || {
        let answer = client.check(&Ask::permitted());
        permits += usize::from(answer.permits);
        (!answer.permits).then_some(answer)
    });
    denied.assert_denial("record_unavailable", 503);
    assert!(inside(&process, &["rm", &ballast]));
    eventually("a permit", || {
        let answer = client.check(&Ask::permitted());
        permits += usize::from(answer.permits);
        answer.permits.then_some(())
    });
    // Out of the namespace, which ends with the process.
    let copy = process.setup.path().join("copy");
    eventually("all of it in a checkpoint", || {
        let copied = inside(&process, &["cp", "-r", log.to_str().unwrap(), copy.to_str().unwrap()]);
        let is_whole = copied && standing(&entries(&copy)).len() == permits;
        if !is_whole {
            std::fs::remove_dir_all(&copy).unwrap();
        }
        is_whole.then_some(())
    });
    verify(&copy);
}

#[test]
fn a_disk_that_is_read_only_stops_the_start() {
    let setup = logged("fsync");
    let log = setup.log();
    std::fs::create_dir(&log).unwrap();
    let config = setup.write_config();
    let script = format!("mount -t tmpfs -o ro tmpfs '{}' && exec \"$@\"", log.display());
    let run = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_palisade"), "serve", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(1), "{}", stderr(&run));
    assert!(stderr(&run).contains("Read-only file system"), "{}", stderr(&run));
}
