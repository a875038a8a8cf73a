package diff

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
)

// tree is a directory for a test: name → content; "→target" is a link, a name that ends in "*" is executable, one that ends in "/" a directory.
type tree map[string]string

func (tr tree) write(t *testing.T, dir string) string {
	t.Helper()
	for name, text := range tr {
		path := filepath.Join(dir, strings.TrimRight(name, "*/"))
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		mode := fs.FileMode(0o644)
		if strings.HasSuffix(name, "*") {
			mode = 0o755
		}
		if target, ok := strings.CutPrefix(text, "→"); ok {
			must(t, os.Symlink(target, path))
		} else if strings.HasSuffix(name, "/") {
			must(t, os.MkdirAll(path, 0o755))
		} else {
			must(t, os.WriteFile(path, []byte(text), mode))
		}
	}
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// noon is the time of everything in a fixture that needs one.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func file(name, text string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: noon, Size: int64(len(text)), PAXRecords: map[string]string{"TEST.text": text}}
}

// tarOf packs headers, each with its content in the record TEST.text, which is not written.
func tarOf(t testing.TB, headers ...tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		text := h.PAXRecords["TEST.text"]
		h.PAXRecords = nil
		must(t, w.WriteHeader(&h))
		_, err := w.Write([]byte(text))
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func gzipOf(t testing.TB, data []byte, level int, mtime time.Time) []byte {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	must(t, err)
	w.ModTime = mtime
	_, err = w.Write(data)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

func zstdOf(t testing.TB, data []byte, level zstd.EncoderLevel) []byte {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level))
	must(t, err)
	defer w.Close()
	return w.EncodeAll(data, nil)
}

func xzOf(t testing.TB, data []byte) []byte {
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	must(t, err)
	_, err = w.Write(data)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

func zipOf(t testing.TB, method uint16, mtime time.Time, names ...string) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range names {
		name, text, _ := strings.Cut(name, "=")
		f, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: method, Modified: mtime})
		must(t, err)
		_, err = f.Write([]byte(text))
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

// arOf packs "name=content" members.
func arOf(mtime int, members ...string) []byte {
	b := []byte(arMagic)
	for _, m := range members {
		name, text, _ := strings.Cut(m, "=")
		b = fmt.Appendf(b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n%s", name, mtime, 0, 0, 0o100644, len(text), text)
		if len(text)%2 == 1 {
			b = append(b, '\n')
		}
	}
	return b
}

func narOf(t *testing.T, tr tree) []byte {
	var b bytes.Buffer
	must(t, nar.Dump(t.Context(), &b, tr.write(t, t.TempDir()), nar.Options{}))
	return b.Bytes()
}

// wasmOf makes a module of custom sections "name=content".
func wasmOf(sections ...string) []byte {
	b := []byte(wasmMagic + "\x01\x00\x00\x00")
	for _, s := range sections {
		name, text, _ := strings.Cut(s, "=")
		body := append(binary.AppendUvarint(nil, uint64(len(name))), name+text...)
		b = binary.AppendUvarint(append(b, 0), uint64(len(body)))
		b = append(b, body...)
	}
	return b
}

// elfOf makes an ELF file with sections "name=content".
func elfOf(t testing.TB, sections ...string) []byte {
	header := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64, Shentsize: 64, Shnum: uint16(len(sections) + 2), Shstrndx: uint16(len(sections) + 1)}
	copy(header.Ident[:], "\x7fELF\x02\x01\x01")
	table := []elf.Section64{{}}
	var body bytes.Buffer
	names := "\x00"
	add := func(name, text string, kind elf.SectionType) {
		table = append(table, elf.Section64{Name: uint32(len(names)), Type: uint32(kind), Off: uint64(64 + body.Len()), Size: uint64(len(text)), Addralign: 1})
		names += name + "\x00"
		body.WriteString(text)
	}
	for _, s := range sections {
		name, text, _ := strings.Cut(s, "=")
		add(name, text, elf.SHT_PROGBITS)
	}
	add(".shstrtab", names+".shstrtab\x00", elf.SHT_STRTAB)
	header.Shoff = uint64(64 + body.Len())
	var b bytes.Buffer
	for _, part := range []any{header, body.Bytes(), table} {
		must(t, binary.Write(&b, binary.LittleEndian, part))
	}
	return b.Bytes()
}

// layoutOf makes an OCI layout of an image with one layer.
func layoutOf(t testing.TB, config, layer string) tree {
	tr := tree{layoutFile: `{"imageLayoutVersion":"1.0.0"}`}
	put := func(mediaType, text string) map[string]any {
		d := digest.Of([]byte(text))
		tr[blobsPath+"/"+d.Hex()] = text
		return map[string]any{"mediaType": mediaType, "digest": d.String(), "size": len(text)}
	}
	encode := func(v any) string {
		b, err := json.Marshal(v)
		must(t, err)
		return string(b)
	}
	l := put("application/vnd.oci.image.layer.v1.tar", layer)
	manifest := put("application/vnd.oci.image.manifest.v1+json", encode(map[string]any{
		"schemaVersion": 2, "layers": []any{l}, "config": put("application/vnd.oci.image.config.v1+json", config),
	}))
	tr[indexFile] = encode(map[string]any{"schemaVersion": 2, "manifests": []any{manifest}})
	return tr
}
