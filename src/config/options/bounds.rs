//! The bounds of the table's values, each with its reason.

use std::time::Duration;

/// Most workers: far above any machine's cores, so that a slip of the finger does not fork the machine to death.
pub(super) const WORKERS_MAX: u64 = 4096;
/// Shortest limit of a request in the application: below it a collection of garbage is taken for a hang.
pub(super) const CALL_TIMEOUT_MIN: Duration = Duration::from_millis(500);
/// Shortest life of a worker: below it the machine boots more than it serves.
pub(super) const AGE_MIN: Duration = Duration::from_secs(1);
/// Most requests of a worker's life; more is as good as no limit.
pub(super) const REQUESTS_MAX: u64 = 1 << 40;
/// Most requests of a warm-up: a boot that asks more is no boot any more.
pub(super) const WARMUP_REQUESTS_MAX: u64 = 100_000;
/// Smallest limit of a worker's memory in bytes: below it no interpreter fits.
pub(super) const RSS_MIN: u64 = 16 << 20;
/// Longest accept queue; the kernel cuts at net.core.somaxconn, which is below it everywhere.
pub(super) const BACKLOG_MAX: u64 = 65_535;
/// More threads of one process than this only wait for each other.
pub(super) const THREADS_MAX: u64 = 1024;
/// Most connections per worker: the largest descriptor limit that the kernel allows by default (fs.nr_open).
pub(super) const CONNECTIONS_MAX: u64 = 1 << 20;
/// Longest timeout: a day is as good as never, and no sum of deadlines overflows.
pub(super) const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Shortest timeout of a client: below it every client on a slow path is cut.
pub(super) const TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// Shortest limit of a line in bytes: below it no request passes.
pub(super) const LINE_MIN: u64 = 16;
/// Longest line of a head in bytes, and the meaning of 0, which is "unlimited" in gunicorn: an unlimited head would let one
/// client take all memory.
pub(super) const LINE_MAX: u64 = 1 << 20;
/// Longest head in bytes, and the meaning of 0: what the parser's spans and a reader's patience are made for.
pub(super) const HEAD_MAX: u64 = 16 << 20;
/// Most header fields, and the meaning of 0, as in gunicorn.
pub(super) const FIELDS_MAX: u64 = 32_768;
/// Largest body in bytes: the largest offset of a file.
pub(super) const BODY_MAX: u64 = i64::MAX as u64;
/// Smallest and largest part of a body kept in memory, in bytes.
pub(super) const BODY_BUFFER: (u64, u64) = (1 << 10, 1 << 30);
/// All permission bits.
pub(super) const UMASK_MAX: u32 = 0o777;
/// First descriptor after the standard streams.
pub(super) const READY_FD_MIN: u64 = 3;
