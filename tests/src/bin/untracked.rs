//! Typical work, without the tracker.

fn main() {
    println!("{}", tests::workload::documents());
}
