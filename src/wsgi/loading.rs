//! Which application is being loaded, for the record of a process that ends or hangs meanwhile. It stands in the file for its stacks, which
//! the master reads then, in front of what faulthandler writes; after the load it is gone. Only where there are several
//! applications: of one everybody knows which it is.

/// Most bytes of the line; a longer one is cut.
const LINE_MAX: usize = 512;

/// The line, at the begin of its file.
pub struct Loading {
    file: Option<StacksFile>,
}

/// The file of the stacks, which the application may close by its number while it is loaded.
struct StacksFile {
    fd: i32,
    device: libc::dev_t,
    inode: libc::ino_t,
}

impl Loading {
    /// For a process whose stacks are written to this descriptor.
    pub fn new(stacks: Option<i32>) -> Self {
        Self { file: stacks.and_then(|fd| identity(fd).map(|(device, inode)| StacksFile { fd, device, inode })) }
    }

    /// That of this mount, or of none, begins.
    pub fn begin(&self, mount: Option<&str>) {
        let line = match mount {
            Some(mount) => format!("it was loading the application of --mount {mount}\n"),
            None => "it was loading the application of no --mount\n".to_owned(),
        };
        self.write(&line);
    }

    /// Writes the line over the one before it; what follows is written behind it. A process that cannot has no line in its record.
    fn write(&self, line: &str) {
        let Some(StacksFile { fd, device, inode }) = self.file else { return };
        if identity(fd) != Some((device, inode)) {
            return;
        }
        let mut bytes = [0; LINE_MAX];
        let len = line.len().min(LINE_MAX);
        bytes[..len].copy_from_slice(&line.as_bytes()[..len]);
        // SAFETY: the bytes outlive the call, which only reads them; a number that is no descriptor is an error.
        unsafe { libc::pwrite(fd, bytes.as_ptr().cast(), LINE_MAX, 0) };
        // SAFETY: it has no memory of ours.
        unsafe { libc::lseek(fd, len as libc::off_t, libc::SEEK_SET) };
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.write("");
    }
}

/// What tells an open file from others.
fn identity(fd: i32) -> Option<(libc::dev_t, libc::ino_t)> {
    // SAFETY: the structure is plain numbers, for which zeros are values.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the structure outlives the call, which writes to it alone.
    (unsafe { libc::fstat(fd, &raw mut stat) } == 0).then_some((stat.st_dev, stat.st_ino))
}
