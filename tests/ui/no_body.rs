trait Declared {
    #[alloc_tracker::profile]
    fn has_no_body(&self);
}

fn main() {}
