#[alloc_tracker::profile]
unsafe extern "C" {
    fn has_no_body_here();
}

fn main() {}
