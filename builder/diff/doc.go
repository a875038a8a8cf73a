// Package diff explains why two files or trees are not the same bytes. A rebuild that differs goes through it: it names every
// differing file, the way through archives down to the member and section that differs, the offset of the first
// differing byte and how many differ, and for each a cause with its evidence in a sentence.
//
// It looks into directories, tar, ar and deb, zip, NAR, gzip, bzip2, xz and zstd, ELF sections, Go build information, WebAssembly
// sections, and OCI layouts, where manifests and layers are paired by their place and not by their name.
//
// It promises:
//   - Compare reports a difference if and only if there is one; causes are an interpretation, differences are not.
//   - The same two inputs give the same report, byte for byte.
//   - Work, memory and disk space are bounded by Options, whatever the input is. What was not looked into is said in Report.Notes, and
//     is compared as plain bytes.
//   - What comes from the compared things is quoted or escaped wherever it is printed.
//
// It follows no symbolic link but the two paths it is given, writes nothing but unlinked temporary files, and runs no other program.
package diff
