#[alloc_tracker::profile]
struct Something;

#[alloc_tracker::profile]
trait Declared {
    fn given(&self) {}
}

fn main() {}
