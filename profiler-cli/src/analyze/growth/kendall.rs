//! Whether a row of values rises: Kendall's S and its exact distribution. In: at most
//! [`MOST_VALUES`] values. Out: the probability that their order is at least as rising by chance.
//!
//! ```text
//! S = sum over i < j of sign(x[j] - x[i])
//! ```
//!
//! By chance means that each order of the same values is as likely as each other. Then the number D
//! of pairs in falling order has the coefficients of a q-multinomial as its distribution. For n
//! values, of which `m1`, `m2`, … are equal, the number of orders with D = d is the coefficient of
//! `q^d` in `[n]! / ([m1]! [m2]! …)`, where `[k] = 1 + q + … + q^(k-1)`. And S is the number of
//! unequal pairs minus 2 D, so a small D means a large S.
//!
//! Source: H. B. Mann, Nonparametric tests against trend, Econometrica 13 (1945); R. P. Stanley,
//! Enumerative Combinatorics 1, section 1.7, for equal values.

/// The most values for which the counts of orders fit into 64 bits with room to spare.
pub const MOST_VALUES: usize = 12;

/// Returns the probability that values in random order have at least the S of these values. It is 1
/// for equal values, and for more than [`MOST_VALUES`] of them.
pub fn p_rising(values: &[u64]) -> f64 {
    if values.len() > MOST_VALUES {
        return 1.0;
    }
    let falling = (1..values.len())
        .map(|later| values[..later].iter().filter(|earlier| **earlier > values[later]).count())
        .sum::<usize>();
    let orders = orders_by_falling_pairs(&group_sizes(values));
    let all: u64 = orders.iter().sum();
    let as_rising: u64 = orders.iter().take(falling + 1).sum();
    as_rising as f64 / all as f64
}

/// Returns the least probability that [`p_rising`] can return for so many values.
pub fn least_p(values: usize) -> f64 {
    1.0 / (1..=values.min(MOST_VALUES)).map(|factor| factor as f64).product::<f64>()
}

/// Returns how many of the values are equal to each other, for each distinct value.
fn group_sizes(values: &[u64]) -> Vec<usize> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.chunk_by(|one, other| one == other).map(<[u64]>::len).collect()
}

/// Returns the number of orders by the number of pairs in falling order.
///
/// A q-multinomial is a product of q-binomials: the first group among the first and the second,
/// both of these among the first three, and so on.
fn orders_by_falling_pairs(groups: &[usize]) -> Vec<u64> {
    let mut orders = vec![1];
    let mut before = 0;
    for group in groups {
        before += group;
        orders = product(&orders, &q_binomial(before, *group));
    }
    orders
}

/// Returns the coefficients of the q-binomial of n over k, by the q-analogue of Pascal's rule:
/// `B(n, k) = B(n - 1, k - 1) + q^k B(n - 1, k)`.
fn q_binomial(n: usize, k: usize) -> Vec<u64> {
    if k == 0 || k == n {
        return vec![1];
    }
    let mut sum = vec![0; k * (n - k) + 1];
    for (at, count) in q_binomial(n - 1, k - 1).into_iter().enumerate() {
        sum[at] += count;
    }
    for (at, count) in q_binomial(n - 1, k).into_iter().enumerate() {
        sum[at + k] += count;
    }
    sum
}

fn product(one: &[u64], other: &[u64]) -> Vec<u64> {
    let mut product = vec![0; one.len() + other.len() - 1];
    for (at, a) in one.iter().enumerate() {
        for (more, b) in other.iter().enumerate() {
            product[at + more] += a * b;
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kendall's S by its definition.
    fn s_of(values: &[u64]) -> i64 {
        let mut s = 0;
        for later in 1..values.len() {
            for earlier in 0..later {
                s += (values[later] as i64 - values[earlier] as i64).signum();
            }
        }
        s
    }

    /// Calls `visit` with every order of the values, equal values told apart.
    fn for_each_order(values: &mut Vec<u64>, from: usize, visit: &mut impl FnMut(&[u64])) {
        if from == values.len() {
            return visit(values);
        }
        for at in from..values.len() {
            values.swap(from, at);
            for_each_order(values, from + 1, visit);
            values.swap(from, at);
        }
    }

    /// The probability by counting all orders.
    fn counted(values: &[u64]) -> f64 {
        let s = s_of(values);
        let (mut all, mut as_rising) = (0u64, 0u64);
        for_each_order(&mut values.to_vec(), 0, &mut |order| {
            all += 1;
            as_rising += u64::from(s_of(order) >= s);
        });
        as_rising as f64 / all as f64
    }

    #[test]
    fn the_probability_is_that_of_counting_all_orders() {
        let rows: [&[u64]; 12] = [
            &[],
            &[7],
            &[1, 2],
            &[2, 1],
            &[1, 2, 3, 4, 5],
            &[1, 3, 2, 4, 6, 5],
            &[5, 4, 3, 2, 1],
            &[1, 1, 2, 2, 3],
            &[4, 4, 4, 4],
            &[0, 0, 0, 5, 5, 9, 9],
            &[9, 0, 3, 3, 8, 1, 1],
            &[1, 2, 2, 3, 5, 4, 7, 7],
        ];
        for row in rows {
            let (exact, counted) = (p_rising(row), counted(row));
            assert!((exact - counted).abs() < 1e-12, "{row:?}: {exact} {counted}");
        }
    }

    #[test]
    fn twelve_values_in_order_have_one_of_12_factorial_orders() {
        let rising: Vec<u64> = (0..12).collect();
        assert_eq!(p_rising(&rising), 1.0 / 479_001_600.0);
        assert_eq!(least_p(12), 1.0 / 479_001_600.0);
        // One step at any of two places: 12 over 5 orders.
        let step = [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2];
        assert_eq!(p_rising(&step), 1.0 / 792.0);
        assert_eq!(p_rising(&[5; 12]), 1.0);
    }
}
