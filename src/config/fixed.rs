//! Settings that a reload cannot change: what they are for was done once, before the first worker.

use super::options::TABLE;
use super::settings::Settings;

/// Keeps in `new` what only a restart can change, as it is in `old`; returns the names of the options that would change it.
pub fn keep_fixed(new: &mut Settings, old: &Settings) -> Vec<&'static str> {
    // Without --bind the sockets may have come from a service manager, which is no change.
    let other_binds = new.binds != old.binds && (new.binds_given || old.binds_given);
    (new.binds, new.binds_given) = (old.binds.clone(), old.binds_given);
    let fixed = TABLE.iter().filter_map(|option| Some((option.name, option.fixed?)));
    let changed = fixed.filter(|(_, keep)| keep(new, old)).map(|(name, _)| name);
    other_binds.then_some("bind").into_iter().chain(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_is_kept_and_named() {
        let old = Settings::default();
        let mut new = Settings { backlog: 7, umask: Some(0o77), workers: Some(3), ..Settings::default() };
        assert_eq!(keep_fixed(&mut new, &old), ["backlog", "umask"]);
        assert_eq!(new, Settings { workers: Some(3), ..old.clone() });
        assert!(keep_fixed(&mut new, &old).is_empty());
        let secret = |secret: Option<&str>| Settings { ajp_secret: secret.map(str::to_owned), ..Settings::default() };
        let (mut none, mut next) = (secret(None), secret(Some("b")));
        assert_eq!(keep_fixed(&mut none, &secret(Some("a"))), ["ajp-secret"], "addresses that were bound with one stay");
        assert!(none == secret(Some("a")) && keep_fixed(&mut next, &secret(Some("a"))).is_empty() && next == secret(Some("b")));
        let other = vec![crate::config::Bind::plain(crate::config::Endpoint::Fd(5))];
        let mut new = Settings { binds: other.clone(), binds_given: true, ..Settings::default() };
        assert_eq!(keep_fixed(&mut new, &old), ["bind"]);
        assert_eq!(new.binds, old.binds);
        let passed = Settings { binds: other.clone(), ..Settings::default() };
        let mut new = Settings::default();
        assert!(keep_fixed(&mut new, &passed).is_empty(), "nobody asked for other addresses");
        assert_eq!(new.binds, other);
    }
}
