//! Clocks and the local time zone. Every call asks the kernel or the C library again; callers that need it often cache by the
//! second.

use std::mem::MaybeUninit;
use std::time::Duration;

/// Nanoseconds per millisecond.
pub const NS_PER_MS: u64 = 1_000_000;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A moment of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wall {
    /// Seconds since the epoch, UTC.
    pub seconds: u64,
    /// Nanoseconds of the second.
    pub nanos: u32,
}

impl Wall {
    /// Seconds since the epoch, with their fraction.
    pub fn as_secs_f64(self) -> f64 {
        Duration::new(self.seconds, self.nanos).as_secs_f64()
    }
}

/// A moment on the local calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// Year, four digits for the next eight thousand years.
    pub year: i32,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, 1 to 31.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 60.
    pub second: u8,
    /// Minutes east of UTC.
    pub offset: i32,
}

/// Nanoseconds of CLOCK_MONOTONIC: never set, stands still while the machine is suspended, the same in every process.
pub fn monotonic() -> u64 {
    let now = clock(libc::CLOCK_MONOTONIC);
    now.seconds * NANOS_PER_SECOND + u64::from(now.nanos)
}

/// The wall clock.
pub fn wall() -> Wall {
    clock(libc::CLOCK_REALTIME)
}

fn clock(id: libc::clockid_t) -> Wall {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec that lives for the call. The two clocks exist on every Linux, so the call cannot fail;
    // if it did, `now` would keep its zeroes.
    unsafe { libc::clock_gettime(id, &mut now) };
    Wall { seconds: u64::try_from(now.tv_sec).unwrap_or(0), nanos: u32::try_from(now.tv_nsec).unwrap_or(0) }
}

/// `seconds` since the epoch on the local calendar (TZ, else /etc/localtime, as the C library read them at first use or at the
/// application's last `time.tzset()`). A moment too far away for the calendar is shown as the epoch in UTC.
pub fn local(seconds: u64) -> Local {
    let epoch = Local { year: 1970, month: 1, day: 1, hour: 0, minute: 0, second: 0, offset: 0 };
    let Ok(seconds) = libc::time_t::try_from(seconds) else { return epoch };
    let mut tm = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call, and localtime_r (unlike localtime) writes nothing but `tm`.
    let done = unsafe { libc::localtime_r(&seconds, tm.as_mut_ptr()) };
    if done.is_null() {
        return epoch;
    }
    // SAFETY: zeroed above, which is a valid tm (integers and a pointer that may be null), and filled by localtime_r.
    let tm = unsafe { tm.assume_init() };
    let small = |n: libc::c_int| u8::try_from(n).unwrap_or(0);
    Local {
        year: tm.tm_year + 1900,
        month: small(tm.tm_mon + 1),
        day: small(tm.tm_mday),
        hour: small(tm.tm_hour),
        minute: small(tm.tm_min),
        second: small(tm.tm_sec),
        offset: i32::try_from(tm.tm_gmtoff / 60).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_does_not_go_back() {
        let first = monotonic();
        assert!(first > 0);
        assert!(monotonic() >= first);
    }

    #[test]
    fn the_wall_clock_agrees_with_std() {
        let std = std::time::UNIX_EPOCH.elapsed().expect("the clock is past 1970").as_secs();
        assert!(wall().seconds.abs_diff(std) <= 1);
    }

    #[test]
    fn the_local_calendar_is_utc_plus_its_offset() {
        let local = local(1_795_255_200); // 2026-11-21T10:00:00Z
        let minutes = i32::from(local.day) * 1440 + i32::from(local.hour) * 60 + i32::from(local.minute) - local.offset;
        assert_eq!((local.year, local.month, minutes, local.second), (2026, 11, 21 * 1440 + 600, 0));
    }

    #[test]
    fn a_moment_beyond_the_calendar_is_no_panic() {
        assert_eq!(local(u64::MAX).year, 1970);
        assert_eq!(local(i64::MAX as u64).year, 1970);
    }
}
