//! Why the server answers a request itself instead of giving it to the application.

/// How many reasons there are.
pub const REASONS: usize = RefusalReason::ALL.len();

/// A reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum RefusalReason {
    /// It is no request, or none that is served here.
    Malformed,
    /// Its head is larger than allowed.
    HeadTooLarge,
    /// Its body is larger than allowed.
    BodyTooLarge,
    /// It did not come in time.
    Timeout,
    /// As many as `--max-queue` waited already.
    QueueFull,
    /// It waited as long as `--queue-timeout`.
    QueueTimeout,
    /// The worker leaves at once.
    Stopping,
    /// There is no memory for it.
    Memory,
    /// Its body could not be stored.
    Disk,
    /// Its client was let in by rules for TLS that do not hold any more.
    TlsRules,
}

impl RefusalReason {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::HeadTooLarge,
        Self::BodyTooLarge,
        Self::Timeout,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::Stopping,
        Self::Memory,
        Self::Disk,
        Self::TlsRules,
    ];

    /// That of an answer with this status to a request that cannot be served as sent.
    pub fn of_status(status: u16) -> Self {
        match status {
            408 => Self::Timeout,
            413 => Self::BodyTooLarge,
            414 | 431 => Self::HeadTooLarge,
            _ => Self::Malformed,
        }
    }

    /// Its name as a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::HeadTooLarge => "head_too_large",
            Self::BodyTooLarge => "body_too_large",
            Self::Timeout => "timeout",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::Stopping => "stopping",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::TlsRules => "tls_rules",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_the_counter_of_its_place() {
        for (index, reason) in RefusalReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
