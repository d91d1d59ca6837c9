//! Figures for those who ask very often. Each rendering takes the master some hundred microseconds, more with many workers. Whoever
//! asks now and then gets one that is made for him; in a flood of questions the last one is given again for a moment, so that
//! nobody who reaches a public door can make the master busy with figures.

use std::time::{Duration, Instant};

use crate::master::status::reply::DoorReply;
use crate::master::status::request::FigureForm;
use crate::status::{ReloadCounts, ServerState};

/// Renderings a second of all kinds together, beyond which answers are repeated; as many may come at once. Scrapers, probes and
/// people with the page ask some few times a second, and 20 renderings take less than 1 % of a core.
const FRESH_PER_SECOND: u32 = 20;

/// Age up to which an answer is repeated: less than a scraper's clock, a network and a person notice.
const REPEATED_FOR: Duration = Duration::from_millis(100);

/// What is told at once however often somebody asks: an answer is not repeated when any of it has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// What the server does.
    pub(super) state: ServerState,
    /// The generation that serves.
    pub(super) generation: u64,
    /// Workers that are ready, have ever been started, and have ended.
    pub(super) workers: (usize, u64, u64),
    /// Reloads so far.
    pub(super) reloads: ReloadCounts,
}

#[derive(Debug)]
struct Repeat {
    form: FigureForm,
    standing: Standing,
    since: Instant,
    reply: DoorReply,
}

/// The last answers of the public doors, one of each kind.
#[derive(Debug, Default)]
pub(in crate::master) struct Repeats {
    last: Vec<Repeat>,
    /// When the renderings so far would all be over if they came at the permitted rate.
    spent: Option<Instant>,
}

impl Repeats {
    /// The answer to give again; `None`: a new one is to be rendered, and [`Self::keep`] is to be told.
    pub(super) fn find(&mut self, form: FigureForm, standing: Standing, now: Instant) -> Option<&DoorReply> {
        if self.may_render(now) {
            return None;
        }
        let last = self.last.iter().find(|last| last.form == form && last.standing == standing)?;
        (now.saturating_duration_since(last.since) <= REPEATED_FOR).then_some(&last.reply)
    }

    /// Takes a share of the renderings of this second, if there is one.
    fn may_render(&mut self, now: Instant) -> bool {
        let each = Duration::from_secs(1) / FRESH_PER_SECOND;
        let spent = self.spent.map_or(now, |spent| spent.max(now));
        if spent.saturating_duration_since(now) > Duration::from_secs(1) - each {
            return false;
        }
        self.spent = Some(spent + each);
        true
    }

    /// Keeps an answer that was rendered now.
    pub(super) fn keep(&mut self, form: FigureForm, standing: Standing, reply: DoorReply, now: Instant) -> &DoorReply {
        self.last.retain(|last| last.form != form);
        self.last.push(Repeat { form, standing, since: now, reply });
        &self.last[self.last.len() - 1].reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::metrics::MetricsFormat;

    const CALM: Standing =
        Standing { state: ServerState::Serving, generation: 1, workers: (2, 2, 0), reloads: ReloadCounts { ok: 0, failed: 0 } };

    /// Asks so often a second for a while; how many answers were rendered, and how old one was at most.
    fn asked(rate: u32, seconds: u32, standing: impl Fn(u32) -> Standing) -> (u32, Duration) {
        let (mut repeats, begin) = (Repeats::default(), Instant::now());
        let (mut rendered, mut last, mut oldest) = (0, begin, Duration::ZERO);
        for number in 0..rate * seconds {
            let now = begin + Duration::from_secs(1) * number / rate;
            if repeats.find(FigureForm::Document, standing(number), now).is_none() {
                repeats.keep(FigureForm::Document, standing(number), DoorReply::text(200, "x"), now);
                (rendered, last) = (rendered + 1, now);
            }
            oldest = oldest.max(now - last);
        }
        (rendered, oldest)
    }

    #[test]
    fn who_asks_now_and_then_always_gets_fresh_figures() {
        for rate in [1, 5, FRESH_PER_SECOND] {
            assert_eq!(asked(rate, 10, |_| CALM), (rate * 10, Duration::ZERO));
        }
    }

    #[test]
    fn a_flood_is_answered_by_few_renderings_none_of_them_old() {
        let (rendered, oldest) = asked(1000, 10, |_| CALM);
        assert!((FRESH_PER_SECOND * 10..=FRESH_PER_SECOND * 11).contains(&rendered), "{rendered}");
        assert!(oldest <= REPEATED_FOR, "{oldest:?}");
    }

    #[test]
    fn what_the_server_does_is_never_repeated_when_it_has_changed() {
        let (rendered, _) = asked(1000, 1, |number| Standing { generation: u64::from(number), ..CALM });
        assert_eq!(rendered, 1000);
    }

    #[test]
    fn one_kind_does_not_answer_for_another_nor_an_old_answer_at_all() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        while repeats.find(FigureForm::Document, CALM, now).is_none() {
            repeats.keep(FigureForm::Document, CALM, DoorReply::text(200, "figures"), now);
        }
        assert_eq!(repeats.find(FigureForm::Document, CALM, now), Some(&DoorReply::text(200, "figures")));
        assert_eq!(repeats.find(FigureForm::Metrics(MetricsFormat::Prometheus), CALM, now), None);
        // The shares of another kind's flood are used up, and the figures are too old by then.
        for time in (0..=REPEATED_FOR.as_millis() as u64 + 1).map(Duration::from_millis) {
            while repeats.find(FigureForm::Page, CALM, now + time).is_none() {
                repeats.keep(FigureForm::Page, CALM, DoorReply::text(200, "page"), now + time);
            }
        }
        assert_eq!(repeats.find(FigureForm::Document, CALM, now + REPEATED_FOR + Duration::from_millis(1)), None);
    }
}
