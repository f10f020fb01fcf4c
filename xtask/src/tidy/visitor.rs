//! The walk through one parsed file.
//!
//! Macro arguments are not parsed by `syn`: there [`tokens`] looks at the token trees.

use std::collections::HashMap;

use proc_macro2::Span;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Item, Meta, Pat, Stmt, Token, UseTree};

use super::scan::{Fact, Sighting};
use super::tokens;

/// Renames are followed this many steps, which ends a cycle of imports.
const IMPORT_STEPS_MAX: usize = 4;

/// Local name → full path, for product code and for test code.
type Imports = HashMap<String, Vec<String>>;

/// Writes down the facts of one file.
#[derive(Debug, Default)]
pub(crate) struct Visitor {
    imports: Imports,
    test_imports: Imports,
    /// How many enclosing items are only there for tests.
    test_depth: usize,
    /// Names of `#[cfg(test)] mod name;`.
    pub(crate) gated: Vec<String>,
    sightings: Vec<Sighting>,
}

impl Visitor {
    fn note(&mut self, span: Span, fact: Fact) {
        let (line, in_test) = (span.start().line, self.test_depth > 0);
        self.sightings.push(Sighting {
            line,
            in_test,
            fact,
        });
    }

    fn within(&mut self, attrs: &[Attribute], visit: impl FnOnce(&mut Self)) {
        let step = usize::from(attrs.iter().any(is_test_only));
        self.test_depth += step;
        visit(self);
        self.test_depth -= step;
    }

    fn function(&mut self, signature: &syn::Signature, end: Span) {
        let start = signature.span();
        let lines = end.end().line + 1 - start.start().line;
        self.note(
            start,
            Fact::Function {
                name: signature.ident.to_string(),
                lines,
            },
        );
    }

    fn name(&mut self, kind: &'static str, ident: &proc_macro2::Ident) {
        self.note(
            ident.span(),
            Fact::Name {
                kind,
                name: ident.to_string(),
            },
        );
    }

    /// Writes down the leaves of an import.
    fn import(&mut self, prefix: &[String], tree: &UseTree) {
        let joined = |last: &proc_macro2::Ident| {
            let own = (last != "self").then(|| last.to_string());
            prefix.iter().cloned().chain(own).collect::<Vec<_>>()
        };
        match tree {
            UseTree::Path(path) => self.import(&joined(&path.ident), &path.tree),
            UseTree::Group(group) => group
                .items
                .iter()
                .for_each(|tree| self.import(prefix, tree)),
            UseTree::Glob(glob) => self.note(glob.span(), Fact::Glob(prefix.join("::"))),
            UseTree::Name(name) => {
                let path = joined(&name.ident);
                let local = path.last().cloned().unwrap_or_default();
                self.import_as(name.ident.span(), local, path);
            }
            UseTree::Rename(rename) => {
                let path = joined(&rename.ident);
                self.import_as(rename.ident.span(), rename.rename.to_string(), path);
            }
        }
    }

    fn import_as(&mut self, span: Span, local: String, path: Vec<String>) {
        self.note(span, Fact::Path(path.join("::")));
        let imports = if self.test_depth > 0 {
            &mut self.test_imports
        } else {
            &mut self.imports
        };
        imports.insert(local, path);
    }

    /// Resolves all paths, now that every import is known.
    pub(crate) fn finish(mut self) -> Vec<Sighting> {
        let mut sightings = std::mem::take(&mut self.sightings);
        for Sighting { in_test, fact, .. } in &mut sightings {
            if let Fact::Path(path) | Fact::Glob(path) | Fact::Detached(path) = fact {
                *path = self.resolved(path, *in_test);
            }
        }
        sightings
    }

    fn resolved(&self, path: &str, in_test: bool) -> String {
        let mut segments: Vec<String> = path.split("::").map(str::to_owned).collect();
        for _ in 0..IMPORT_STEPS_MAX {
            let first = &segments[0];
            let test_import = self.test_imports.get(first).filter(|_| in_test);
            let Some(import) = test_import.or_else(|| self.imports.get(first)) else {
                break;
            };
            if import.first() == Some(first) {
                break;
            }
            segments.splice(..1, import.iter().cloned());
        }
        // What `std` re-exports from these two is the same item.
        if matches!(segments[0].as_str(), "core" | "alloc") {
            segments[0] = "std".into();
        }
        segments.join("::")
    }
}

impl<'ast> Visit<'ast> for Visitor {
    fn visit_item(&mut self, item: &'ast Item) {
        if let Item::Mod(module) = item
            && module.content.is_none()
            && module.attrs.iter().any(is_test_only)
        {
            self.gated.push(module.ident.to_string());
        }
        self.within(attributes(item), |visitor| visit::visit_item(visitor, item));
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import(&[], &item.tree);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, item.block.brace_token.span.close());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.within(&item.attrs, |visitor| {
            visitor.function(&item.sig, item.block.brace_token.span.close());
            visit::visit_impl_item_fn(visitor, item);
        });
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block.brace_token.span.close());
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.name("struct", &item.ident);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.name("enum", &item.ident);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_union(&mut self, item: &'ast syn::ItemUnion) {
        self.name("union", &item.ident);
        visit::visit_item_union(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.name("type", &item.ident);
        visit::visit_item_type(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.name("module", &item.ident);
        visit::visit_item_mod(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.name("trait", &item.ident);
        if let Some(token) = &item.unsafety {
            self.note(token.span, Fact::Unsafe("unsafe trait"));
        }
        visit::visit_item_trait(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let Some(token) = &item.unsafety {
            self.note(token.span, Fact::Unsafe("unsafe impl"));
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_item_foreign_mod(&mut self, item: &'ast syn::ItemForeignMod) {
        self.note(item.abi.extern_token.span, Fact::Unsafe("extern block"));
        visit::visit_item_foreign_mod(self, item);
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.note(block.unsafe_token.span, Fact::Unsafe("unsafe block"));
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if let Some(token) = &signature.unsafety {
            self.note(token.span, Fact::Unsafe("unsafe fn"));
        }
        if let Some(abi) = &signature.abi {
            self.note(abi.extern_token.span, Fact::Unsafe("extern fn"));
        }
        visit::visit_signature(self, signature);
    }

    fn visit_attribute(&mut self, attr: &'ast Attribute) {
        if let Some(kind) = unsafe_attribute(attr) {
            self.note(attr.span(), Fact::Unsafe(kind));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.note(path.span(), Fact::Path(joined(path)));
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.note(call.method.span(), Fact::Method(call.method.to_string()));
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        let name = mac.path.segments.last().map(|last| last.ident.to_string());
        self.note(mac.path.span(), Fact::Macro(name.unwrap_or_default()));
        for (span, fact) in tokens::facts(mac.tokens.clone()) {
            self.note(span, fact);
        }
    }

    fn visit_stmt(&mut self, stmt: &'ast Stmt) {
        if let Some(callee) = dropped_call(stmt) {
            self.note(callee.span(), Fact::Detached(joined(callee)));
        }
        visit::visit_stmt(self, stmt);
    }
}

fn joined(path: &syn::Path) -> String {
    let names: Vec<String> = path
        .segments
        .iter()
        .map(|part| part.ident.to_string())
        .collect();
    names.join("::")
}

/// The function of a statement `f(…);` or `let _ = f(…);`.
fn dropped_call(stmt: &Stmt) -> Option<&syn::Path> {
    let call = match stmt {
        Stmt::Expr(expr, Some(_)) => expr,
        Stmt::Local(local) if matches!(local.pat, Pat::Wild(_)) => &local.init.as_ref()?.expr,
        _ => return None,
    };
    let Expr::Call(call) = call else { return None };
    let Expr::Path(callee) = &*call.func else {
        return None;
    };
    Some(&callee.path)
}

fn unsafe_attribute(attr: &Attribute) -> Option<&'static str> {
    let path = attr.path();
    if path.is_ident("unsafe") {
        return Some("unsafe attribute");
    }
    if ["no_mangle", "export_name", "link_section"]
        .iter()
        .any(|name| path.is_ident(name))
    {
        return Some("linker attribute");
    }
    let lifts = path.is_ident("allow") || path.is_ident("expect");
    let Meta::List(list) = &attr.meta else {
        return None;
    };
    let names_it = list
        .tokens
        .to_string()
        .split([',', ' '])
        .any(|word| word == "unsafe_code");
    (lifts && names_it).then_some("lifted lint `unsafe_code`")
}

fn is_test_only(attr: &Attribute) -> bool {
    let last = attr.path().segments.last();
    if last.is_some_and(|segment| segment.ident == "test") {
        return true;
    }
    let is_cfg = attr.path().is_ident("cfg");
    is_cfg
        && attr
            .parse_args::<Meta>()
            .is_ok_and(|condition| needs_test(&condition))
}

/// Whether a `cfg` condition can only hold in a test build.
fn needs_test(condition: &Meta) -> bool {
    let Meta::List(list) = condition else {
        return condition.path().is_ident("test");
    };
    let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
    let Ok(parts) = parts else { return false };
    let mut parts = parts.iter();
    match list.path.get_ident().map(ToString::to_string).as_deref() {
        Some("all") => parts.any(needs_test),
        Some("any") => parts.len() > 0 && parts.all(needs_test),
        _ => false,
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
