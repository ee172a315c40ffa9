//! Where a shared database may lie: on a file system of this machine.
//!
//! Two processes share a WAL database through memory that both map and through the kernel's file locks.
//! On a network file system the mapping is not shared between machines and locks are often kept by
//! nobody; the database breaks without an error (<https://www.sqlite.org/wal.html>, "All processes
//! using a database must be on the same host computer").

use std::io;
use std::path::Path;

/// Why a directory cannot hold the database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsuitable {
    /// It lies on another machine.
    #[error(
        "{path} is on a network file system ({kind}), where two processes cannot share a database safely; \
         put the state directory on a local disk"
    )]
    Network {
        /// The directory.
        path: String,
        /// What kind.
        kind: String,
    },
    /// It could not be asked.
    #[error("could not ask what file system {path} is on")]
    Unknown {
        /// The directory.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Refuses a directory on a network file system.
///
/// # Errors
/// [`Unsuitable`]; the configuration has to change.
pub(super) fn check(path: &Path) -> Result<(), Unsuitable> {
    let shown = || path.display().to_string();
    let unknown = |source: io::Error| Unsuitable::Unknown { path: shown(), source };
    let magic = rustix::fs::statfs(path).map_err(|source| unknown(source.into()))?.f_type;
    #[expect(clippy::cast_possible_truncation, reason = "magic numbers have 32 bits")]
    #[expect(clippy::cast_sign_loss, reason = "and some have the highest one set")]
    let magic = magic as u32;
    let mounted_as = if magic == FUSE {
        let device = rustix::fs::stat(path).map_err(|source| unknown(source.into()))?.st_dev;
        let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        let table = std::fs::read_to_string("/proc/self/mountinfo").map_err(unknown)?;
        mount_type(&table, &device).map(str::to_owned)
    } else {
        None
    };
    match judge(magic, mounted_as.as_deref()) {
        None => Ok(()),
        Some(kind) => Err(Unsuitable::Network { path: shown(), kind }),
    }
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
    fn this_directory_can_be_asked_about() {
        let dir = tempfile::tempdir().unwrap();
        check(dir.path()).unwrap();
        let gone = check(&dir.path().join("gone")).unwrap_err();
        assert!(matches!(gone, Unsuitable::Unknown { .. }));
    }
}
