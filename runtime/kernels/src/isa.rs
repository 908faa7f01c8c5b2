//! Which instruction sets this machine has, and the one place where a kernel body meets one.
//!
//! An [`Isa`] can only be had for what the machine supports: holding the value is the proof that its
//! instructions may be used.

use std::sync::OnceLock;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SimdLevel {
    Scalar,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// How four products of bytes are added to an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Int8Dot {
    Scalar,
    /// `smull`, `smlal` and `sadalp`.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// `sdot`.
    #[cfg(target_arch = "aarch64")]
    Dotprod,
    /// `usmmla`.
    #[cfg(target_arch = "aarch64")]
    I8mm,
    /// `vpmaddubsw` and `vpmaddwd`.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// `vpdpbusd` on 256 bits.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// `vpdpbusd` on 512 bits.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// `tdpbusd`, on whole tiles; single rows as [`Int8Dot::Avx512Vnni`].
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// `i32x4.dot_i16x8_s` of WebAssembly.
    #[cfg(target_feature = "simd128")]
    Simd128,
}

/// How the products of pairs of bf16 are added to an f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bf16Dot {
    /// As products of f32.
    Widened,
    /// `vdpbf16ps` on 512 bits.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// `tdpbf16ps`, on whole tiles.
    #[cfg(target_arch = "x86_64")]
    Amx,
}

/// An instruction set that this machine has: one for floats, and one for products of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Isa {
    kind: SimdLevel,
    integers: Int8Dot,
}

impl Isa {
    /// What every machine of this architecture has.
    pub const SCALAR: Isa = Isa { kind: SimdLevel::Scalar, integers: Int8Dot::Scalar };

    /// Every instruction set of this machine that kernels exist for, slowest first.
    pub fn available() -> Vec<Isa> {
        #[cfg_attr(
            not(any(target_arch = "aarch64", target_arch = "x86_64", target_feature = "simd128")),
            allow(unused_mut)
        )]
        let mut found = vec![Isa::SCALAR];
        #[cfg(target_arch = "aarch64")]
        {
            let neon = Isa { kind: SimdLevel::Neon, integers: Int8Dot::Neon };
            found.push(neon);
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                found.push(Isa { integers: Int8Dot::Dotprod, ..neon });
            }
            if std::arch::is_aarch64_feature_detected!("i8mm") {
                found.push(Isa { integers: Int8Dot::I8mm, ..neon });
            }
        }
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            let avx2 = Isa { kind: SimdLevel::Avx2, integers: Int8Dot::Avx2 };
            found.push(avx2);
            let wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            let avx512 = wide.then_some(Isa { kind: SimdLevel::Avx512, ..avx2 });
            let avx_vnni = Isa { integers: Int8Dot::AvxVnni, ..avx2 };
            let avx_vnni = is_x86_feature_detected!("avxvnni").then_some(avx_vnni);
            match avx512.filter(|_| is_x86_feature_detected!("avx512vnni")) {
                Some(avx512) => {
                    found.extend(avx_vnni);
                    found.extend([avx512, Isa { integers: Int8Dot::Avx512Vnni, ..avx512 }]);
                    if crate::amx::permitted().bytes {
                        found.push(Isa { integers: Int8Dot::Amx, ..avx512 });
                    }
                }
                None => found.extend(avx512.into_iter().chain(avx_vnni)),
            }
        }
        // A module holds one set of instructions: floats are in vectors throughout where it was compiled so.
        #[cfg(target_feature = "simd128")]
        found.push(Isa { integers: Int8Dot::Simd128, ..Isa::SCALAR });
        found
    }

    /// The fastest one, or the one that `SMALTI_FORCE_ISA` names. Looked up once.
    ///
    /// A name that this machine does not know counts for nothing here: programs and the runtime ask [`Isa::forced`]
    /// first and refuse it.
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            let forced = Isa::forced().ok().flatten();
            forced.or_else(|| Isa::available().pop()).unwrap_or(Isa::SCALAR)
        })
    }

    /// The instruction set that `SMALTI_FORCE_ISA` names; none if the variable is unset or empty.
    ///
    /// # Errors
    /// A name that is not one of [`Isa::available`].
    pub fn forced() -> Result<Option<Isa>, UnknownIsa> {
        match std::env::var_os("SMALTI_FORCE_ISA") {
            Some(name) if !name.is_empty() => {
                let found = name.to_str().and_then(Isa::named);
                found.map(Some).ok_or_else(|| UnknownIsa(name.to_string_lossy().into_owned()))
            }
            _ => Ok(None),
        }
    }

    /// The instruction set of this name, if the machine has it.
    pub fn named(name: &str) -> Option<Isa> {
        Isa::available().into_iter().find(|isa| isa.name() == name)
    }

    /// The name in `SMALTI_FORCE_ISA` and in reports.
    pub fn name(self) -> &'static str {
        #[cfg(target_arch = "x86_64")]
        match self.integers {
            Int8Dot::AvxVnni => return "avxvnni",
            Int8Dot::Avx512Vnni => return "vnni",
            Int8Dot::Amx => return "amx",
            _ => {}
        }
        #[cfg(target_arch = "aarch64")]
        match self.integers {
            Int8Dot::Dotprod => return "dotprod",
            Int8Dot::I8mm => return "i8mm",
            _ => {}
        }
        #[cfg(target_feature = "simd128")]
        if self.integers == Int8Dot::Simd128 {
            return "simd128";
        }
        match self.kind {
            SimdLevel::Scalar => "scalar",
            #[cfg(target_arch = "aarch64")]
            SimdLevel::Neon => "neon",
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 => "avx512",
        }
    }

    /// Whether products of bf16 are instructions, `vdpbf16ps` or `tdpbf16ps`: they are then faster than those of f32.
    pub fn has_bf16(self) -> bool {
        self.pairs() != Bf16Dot::Widened
    }

    /// How pairs of bf16 are multiplied.
    pub(crate) fn pairs(self) -> Bf16Dot {
        #[cfg(target_arch = "x86_64")]
        {
            if self.integers == Int8Dot::Amx && crate::amx::permitted().pairs {
                return Bf16Dot::Amx;
            }
            if self.kind == SimdLevel::Avx512 && is_x86_feature_detected!("avx512bf16") {
                return Bf16Dot::Avx512;
            }
        }
        Bf16Dot::Widened
    }

    pub(crate) fn kind(self) -> SimdLevel {
        self.kind
    }

    pub(crate) fn integers(self) -> Int8Dot {
        self.integers
    }
}

/// A name in `SMALTI_FORCE_ISA` that is no instruction set of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownIsa(String);

impl std::fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = Isa::available().into_iter().map(Isa::name).collect();
        write!(f, "SMALTI_FORCE_ISA is {:?}: this machine has {}", self.0, names.join(", "))
    }
}

impl std::error::Error for UnknownIsa {}

/// Defines `pub fn name(isa: Isa, args)` that runs `body::<FMA, WIDE>(args)` compiled for the instruction set.
///
/// `FMA` says that a fused multiply-add is one instruction, `WIDE` that there are 32 vector registers of 16 f32.
/// The body must be `#[inline(always)]` and safe.
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$doc])*
        $vis fn $name(isa: $crate::isa::Isa, $($arg: $type),*) $(-> $ret)? {
            use $crate::isa::SimdLevel;
            use $crate::math::FUSED;
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $type),*) $(-> $ret)? {
                $body::<true, false>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($arg: $type),*) $(-> $ret)? {
                $body::<true, true>($($arg),*)
            }
            match isa.kind() {
                SimdLevel::Scalar => $body::<FUSED, false>($($arg),*),
                // Every aarch64 has NEON with fused multiply-add.
                #[cfg(target_arch = "aarch64")]
                SimdLevel::Neon => $body::<true, false>($($arg),*),
                // SAFETY: an `Isa` of this kind is only made where the features were detected.
                #[cfg(target_arch = "x86_64")]
                SimdLevel::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                SimdLevel::Avx512 => unsafe { avx512($($arg),*) },
            }
        }
    };
}
pub(crate) use dispatch;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_what_is_available() {
        for isa in Isa::available() {
            assert_eq!(Isa::named(isa.name()), Some(isa));
        }
        assert_eq!(Isa::named("abacus"), None);
        assert!(Isa::available().contains(&Isa::best()));
    }
}
