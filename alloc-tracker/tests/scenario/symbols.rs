//! The test program's own symbol table: tells which function an address in a dump belongs to.

use std::collections::BTreeMap;

use object::{Object, ObjectSymbol};

use crate::scenario::replay::Replay;

/// The functions of the running program's file.
pub(crate) struct Symbols {
    functions: BTreeMap<u64, (u64, String)>,
    #[allow(dead_code, reason = "not every test program asks for it")]
    pub(crate) build_id: Vec<u8>,
    path: String,
}

impl Symbols {
    pub(crate) fn own() -> Symbols {
        let path = std::env::current_exe().unwrap();
        let file = std::fs::read(&path).unwrap();
        let file = object::File::parse(file.as_slice()).unwrap();
        let functions = file
            .symbols()
            .filter(|symbol| symbol.kind() == object::SymbolKind::Text && symbol.size() > 0)
            .map(|symbol| (symbol.address(), (symbol.size(), symbol.name().unwrap().to_owned())))
            .collect();
        let build_id = file.build_id().unwrap().expect("a build-id").to_vec();
        Symbols { functions, build_id, path: path.to_str().unwrap().to_owned() }
    }

    /// Returns the mangled name of the function that contains a return address. Empty for addresses
    /// outside of the program's own file.
    pub(crate) fn name(&self, replay: &Replay, return_address: u64) -> &str {
        let call = return_address - 1;
        let Some(module) = replay.module_at(call).filter(|module| module.path == self.path) else {
            return "";
        };
        let address = call - module.bias;
        match self.functions.range(..=address).next_back() {
            Some((start, (size, name))) if address < start + size => name,
            _ => "",
        }
    }

    /// Returns the names of the functions of a whole stack, leaf first.
    pub(crate) fn names(&self, replay: &Replay, chain: &[u64]) -> Vec<&str> {
        chain.iter().map(|address| self.name(replay, *address)).collect()
    }
}
