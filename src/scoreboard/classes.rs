//! Classes of times: fine enough that a quantile by interpolation is right within 2 %, and found with a few instructions.
//!
//! A decade has 24 classes, whose bounds are round numbers, so that the usual bounds of dashboards (5 ms, 0.25 s) are among them
//! and a coarser histogram can be cut out exactly.

/// Bounds within a decade.
const STEPS: [u64; 24] = [10, 11, 12, 13, 14, 15, 16, 18, 20, 22, 25, 28, 30, 33, 36, 40, 45, 50, 55, 60, 67, 75, 82, 90];

/// Decades between the first bound and the last.
const DECADES: usize = 7;

/// The first bound: a thousand times [`STEPS`], in nanoseconds.
const UNIT: u64 = 1_000;

/// How many bounds there are.
const BOUNDS: usize = STEPS.len() * DECADES + 1;

/// How many classes there are: one up to each bound, and one for what is longer.
pub const CLASSES: usize = BOUNDS + 1;

/// The upper bounds of the classes in nanoseconds, inclusive: 10 us to 100 s. Longer times have a class of their own.
pub const BOUNDS_NS: [u64; BOUNDS] = {
    let mut bounds = [0; BOUNDS];
    let (mut index, mut unit) = (0, UNIT);
    while index < BOUNDS {
        bounds[index] = STEPS[index % STEPS.len()] * unit;
        index += 1;
        if index.is_multiple_of(STEPS.len()) {
            unit *= 10;
        }
    }
    bounds
};

/// Times below this power of two are in the first class.
const FIRST_EXPONENT: u32 = 13;

/// The power of two above the last bound.
const LAST_EXPONENT: u32 = 37;

/// Each power of two is divided into so many cells, by the bits that follow the first one.
const CELL_BITS: u32 = 3;

const CELLS: usize = ((LAST_EXPONENT - FIRST_EXPONENT) << CELL_BITS) as usize;

/// The class of the shortest time of each cell. A cell has two bounds at most, so the class of any time is this one or one of the
/// next two. There is a place for each number of eight bits, so that no index needs a check.
const FIRST_OF_CELL: [u8; 1 << 8] = {
    assert!(CELLS <= 1 << 8);
    let mut first = [0; 1 << 8];
    let mut cell = 0;
    while cell < CELLS {
        let exponent = FIRST_EXPONENT + (cell >> CELL_BITS) as u32;
        let begin = (1 << exponent) + ((cell as u64 & ((1 << CELL_BITS) - 1)) << (exponent - CELL_BITS));
        let mut class = 0;
        while class < BOUNDS && BOUNDS_NS[class] < begin {
            class += 1;
        }
        first[cell] = class as u8;
        cell += 1;
    }
    first
};

/// The bounds, with room for a look at the two after each class of [`FIRST_OF_CELL`].
const WATCHED: [u64; (1 << 8) + 1] = {
    let mut bounds = [u64::MAX; (1 << 8) + 1];
    let mut index = 0;
    while index < BOUNDS {
        bounds[index] = BOUNDS_NS[index];
        index += 1;
    }
    bounds
};

/// The class of a time in nanoseconds, less than [`CLASSES`].
#[inline]
pub fn class_of(ns: u64) -> usize {
    let ns = ns.clamp(1 << FIRST_EXPONENT, (1 << LAST_EXPONENT) - 1);
    let exponent = 63 - ns.leading_zeros();
    let cell = (ns >> (exponent - CELL_BITS)) as usize + ((exponent - FIRST_EXPONENT) << CELL_BITS) as usize - (1 << CELL_BITS);
    let first = usize::from(FIRST_OF_CELL[usize::from(cell as u8)]);
    first + usize::from(ns > WATCHED[first]) + usize::from(ns > WATCHED[first + 1])
}

/// Times, counted by class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// How many were in each of the [`CLASSES`].
    pub buckets: Vec<u64>,
    /// Their sum in nanoseconds.
    pub sum_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; CLASSES], sum_ns: 0 }
    }
}

impl Histogram {
    /// How many times there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum: u64, count| sum.wrapping_add(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slowly(ns: u64) -> usize {
        BOUNDS_NS.iter().position(|bound| ns <= *bound).unwrap_or(BOUNDS)
    }

    #[test]
    fn the_class_of_a_time_is_that_of_the_first_bound_that_is_not_below_it() {
        assert_eq!((BOUNDS_NS[0], BOUNDS_NS[BOUNDS - 1], CLASSES), (10_000, 100_000_000_000, 170));
        for bound in BOUNDS_NS {
            for ns in [bound - 1, bound, bound + 1] {
                assert_eq!(class_of(ns), slowly(ns), "{ns}");
            }
        }
        for exponent in 0..64 {
            for ns in [1 << exponent, (1 << exponent) - 1, (1 << exponent) + 1] {
                assert_eq!(class_of(ns), slowly(ns), "{ns}");
            }
        }
        let mut ns: u64 = 1;
        while ns < 1 << 40 {
            assert_eq!(class_of(ns), slowly(ns), "{ns}");
            ns += ns / 4_999 + 1;
        }
        assert_eq!((class_of(0), class_of(u64::MAX)), (0, CLASSES - 1));
    }

    #[test]
    fn the_bounds_of_common_dashboards_are_bounds() {
        for ms in [5, 10, 25, 50, 75, 100, 250, 500, 750, 1_000, 2_500, 5_000, 7_500, 10_000] {
            assert!(BOUNDS_NS.contains(&(ms * 1_000_000)), "{ms} ms");
        }
    }
}
