//! Whether files lie on this machine.
//!
//! What two generations share, a database above all, they share through memory that both map and through the kernel's
//! file locks. On a network file system the mapping is not shared between machines and locks are often kept by nobody
//! (<https://www.sqlite.org/wal.html>, "All processes using a database must be on the same host computer").

use std::io;
use std::path::Path;

/// The kind of network file system that `path` is on; `None` for one of this machine.
///
/// # Errors
/// Those of statfs(2), stat(2) and of reading `/proc/self/mountinfo`.
pub fn network(path: &Path) -> io::Result<Option<String>> {
    let magic = rustix::fs::statfs(path)?.f_type;
    #[expect(clippy::cast_possible_truncation, reason = "magic numbers have 32 bits")]
    #[expect(clippy::cast_sign_loss, reason = "and some have the highest one set")]
    let magic = magic as u32;
    let mounted_as = if magic == FUSE {
        let device = rustix::fs::stat(path)?.st_dev;
        let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        let table = std::fs::read_to_string("/proc/self/mountinfo")?;
        mount_type(&table, &device).map(str::to_owned)
    } else {
        None
    };
    Ok(judge(magic, mounted_as.as_deref()))
}

/// `FUSE_SUPER_MAGIC`. Behind it is anything: the mount's type says what.
const FUSE: u32 = 0x6573_5546;

/// Numbers of `statfs(2)` and `linux/magic.h`.
const NETWORK: [(u32, &str); 14] = [
    (0x6969, "nfs"),
    (0x517b, "smb"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x0102_1997, "9p"),
    (0x5346_414f, "afs"),
    (0x6b41_4653, "afs"),
    (0x00c3_6400, "ceph"),
    (0x7375_7245, "coda"),
    (0x564c, "ncp"),
    (0x0bd0_0bd0, "lustre"),
    (0x4750_4653, "gpfs"),
    (0x1983_0326, "beegfs"),
    (0x2030_528d, "panfs"),
];

/// FUSE file systems that keep their files on this machine. `virtiofs` is the host's directory seen by a guest:
/// both generations are in the guest, whose kernel keeps their locks and pages.
const LOCAL_FUSE: [&str; 8] = [
    "fuseblk",
    "virtiofs",
    "fuse.fuse-overlayfs",
    "fuse.bindfs",
    "fuse.mergerfs",
    "fuse.gocryptfs",
    "fuse.encfs",
    "fuse.lxcfs",
];

/// What is wrong with a file system, if anything.
fn judge(magic: u32, mounted_as: Option<&str>) -> Option<String> {
    if magic == FUSE {
        return match mounted_as {
            Some(kind) if LOCAL_FUSE.contains(&kind) => None,
            // sshfs, glusterfs, rclone … and what nobody has vouched for.
            Some(kind) => Some(kind.to_owned()),
            None => Some("fuse".to_owned()),
        };
    }
    NETWORK.iter().find(|(known, _)| *known == magic).map(|(_, kind)| (*kind).to_owned())
}

/// The type of the file system mounted from `device`, from the text of `/proc/self/mountinfo` (proc(5)).
fn mount_type<'a>(table: &'a str, device: &str) -> Option<&'a str> {
    table.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        (mount.split(' ').nth(2)? == device).then(|| source.split(' ').next())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_refused_and_named() {
        for (magic, mounted_as, kind) in [
            (0x6969, None, "nfs"),
            (0xff53_4d42, None, "cifs"),
            (0xfe53_4d42, None, "smb2"),
            (0x0102_1997, None, "9p"),
            (FUSE, Some("fuse.sshfs"), "fuse.sshfs"),
            (FUSE, Some("fuse.glusterfs"), "fuse.glusterfs"),
            (FUSE, None, "fuse"),
        ] {
            assert_eq!(judge(magic, mounted_as).as_deref(), Some(kind));
        }
    }

    #[test]
    fn local_file_systems_are_not() {
        let (ext4, tmpfs, overlay, btrfs) = (0xef53, 0x0102_1994, 0x794c_7630, 0x9123_683e);
        for magic in [ext4, tmpfs, overlay, btrfs] {
            assert_eq!(judge(magic, None), None);
        }
        assert_eq!(judge(FUSE, Some("fuse.fuse-overlayfs")), None);
        assert_eq!(judge(FUSE, Some("fuseblk")), None);
    }

    #[test]
    fn a_mount_is_found_by_its_device() {
        let table = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                     40 22 0:52 / /mnt/a\\040b rw master:3 - fuse.sshfs host:/x rw,user_id=0\n";
        assert_eq!(mount_type(table, "0:52"), Some("fuse.sshfs"));
        assert_eq!(mount_type(table, "254:0"), Some("ext4"));
        assert_eq!(mount_type(table, "9:9"), None);
    }

    #[test]
    fn a_directory_of_this_machine_is_on_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(network(dir.path()).unwrap(), None);
        assert!(network(&dir.path().join("gone")).is_err());
    }
}
