//! The interval of a share that was counted. In: how many of how many. Out: the limits between
//! which the true share lies, by Wilson's score.
//!
//! ```text
//! (k + z^2/2  -+  z sqrt(k (n - k) / n + z^2/4)) / (n + z^2)
//! ```
//!
//! Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference,
//! Journal of the American Statistical Association 22 (1927).

/// Returns the limits of the share for a confidence of 95 %; `None` if nothing was counted.
pub fn wilson(part: u64, all: u64) -> Option<[f64; 2]> {
    if all == 0 {
        return None;
    }
    let (k, n, z2) = (part.min(all) as f64, all as f64, Z * Z);
    let half = Z * (k * (n - k) / n + z2 / 4.0).sqrt();
    let limit = |offset: f64| ((k + z2 / 2.0 + offset) / (n + z2)).clamp(0.0, 1.0);
    // The two limits are exact at the ends, where rounding may miss them.
    let low = if part == 0 { 0.0 } else { limit(-half) };
    Some([low, if part >= all { 1.0 } else { limit(half) }])
}

/// The point of the normal distribution beyond which 2.5 % lie.
const Z: f64 = 1.959_963_984_540_054;

#[cfg(test)]
mod tests {
    use super::*;

    /// The limits are the shares p at which the counted share is z standard deviations away:
    /// (k/n - p)^2 = z^2 p (1 - p) / n.
    #[test]
    fn the_limits_solve_the_equation_that_defines_them() {
        for (k, n) in [(1, 10), (3, 7), (50, 100), (17, 10_000), (9_999, 10_000)] {
            let limits = wilson(k, n).unwrap();
            for p in limits {
                let distance = k as f64 / n as f64 - p;
                let expected = Z * Z * p * (1.0 - p) / n as f64;
                assert!((distance * distance - expected).abs() < 1e-12, "{k} of {n}: {p}");
            }
            let share = k as f64 / n as f64;
            assert!(limits[0] < share && share < limits[1]);
        }
    }

    #[test]
    fn nothing_of_n_has_z2_by_n_plus_z2_as_its_upper_limit() {
        let [low, high] = wilson(0, 100).unwrap();
        assert_eq!(low, 0.0);
        assert!((high - Z * Z / (100.0 + Z * Z)).abs() < 1e-12);
        let [low, high] = wilson(100, 100).unwrap();
        assert_eq!(high, 1.0);
        assert!((low - 100.0 / (100.0 + Z * Z)).abs() < 1e-12);
        assert_eq!(wilson(0, 0), None);
    }
}
