package manifest

import (
	"embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
)

// sources are the files that declare the types of documents. Their comments are the documentation of every field: Schema
// and Explain read them here, so what a person is told and what the code says cannot drift.
//
//go:embed manifest.go ref.go target.go quantity.go build.go job.go policy.go trustroot.go playbook.go directive.go node.go
var sources embed.FS

// comments are the documentation of types, by name; of fields, as "Type.Field"; and of the values of enumerated types, as
// "Type=value".
type comments map[string]string

// readComments parses the sources. It takes milliseconds and is done only when someone asks for documentation.
func readComments() (comments, error) {
	files, err := sources.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("list sources: %w", err)
	}
	docs := comments{}
	for _, entry := range files {
		src, err := sources.ReadFile(entry.Name())
		if err != nil {
			return nil, fmt.Errorf("read source %s: %w", entry.Name(), err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), entry.Name(), src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("parse source %s: %w", entry.Name(), err)
		}
		for _, decl := range file.Decls {
			if gen, ok := decl.(*ast.GenDecl); ok {
				docs.declaration(gen)
			}
		}
	}
	return docs, nil
}

func (d comments) declaration(gen *ast.GenDecl) {
	for _, spec := range gen.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			d[spec.Name.Name] = oneLine(gen.Doc)
			if s, ok := spec.Type.(*ast.StructType); ok {
				d.fields(spec.Name.Name, s)
			}
		case *ast.ValueSpec:
			d.value(spec)
		}
	}
}

func (d comments) fields(typeName string, s *ast.StructType) {
	for _, f := range s.Fields.List {
		text := oneLine(f.Doc)
		if text == "" {
			text = oneLine(f.Comment)
		}
		for _, name := range f.Names {
			d[typeName+"."+name.Name] = text
		}
	}
}

// value documents a constant of an enumerated type.
func (d comments) value(spec *ast.ValueSpec) {
	typ, ok := spec.Type.(*ast.Ident)
	if !ok || len(spec.Values) != 1 {
		return
	}
	if lit, ok := spec.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
		if value, err := strconv.Unquote(lit.Value); err == nil {
			d[typ.Name+"="+value] = oneLine(spec.Comment)
		}
	}
}

// oneLine joins the lines of a comment's paragraphs.
func oneLine(group *ast.CommentGroup) string {
	if group == nil {
		return ""
	}
	paragraphs := strings.Split(strings.TrimSpace(group.Text()), "\n\n")
	for i, p := range paragraphs {
		paragraphs[i] = strings.Join(strings.Fields(p), " ")
	}
	return strings.Join(paragraphs, "\n")
}

// named rewrites a comment, which speaks of Go names as Go's comments do, for readers of documents: a field's own Go name
// at its beginning becomes its name in documents.
func named(doc, goName, name string) string {
	if rest, ok := strings.CutPrefix(doc, goName+" "); ok {
		return name + " " + rest
	}
	return doc
}
