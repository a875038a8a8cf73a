// Package manual writes the manual pages of a program out of its commands: what `--help` says, as pages that man(1) shows. It promises that
// every command has a page, that the same program always gives the same bytes (no date, no host), and that no text of a command is taken for
// a request of roff. It runs nothing, and knows no program.
package manual

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Book is what all pages of a program share.
type Book struct {
	Section  string // of the manual: "1" for commands, "8" for services
	Version  string // of the program; may be empty
	Statuses []Status
	More     []Chapter // of the program's own page
}

// Status is an exit status, with what it means.
type Status struct {
	Status  int
	Meaning string
}

// Chapter is a part of a page that lists things by name, such as files or environment variables.
type Chapter struct {
	Title   string
	Entries []Entry
}

// Entry is a thing with what is said of it.
type Entry struct{ Term, Text string }

// Page is a manual page: the name of its file, such as arch-build.1, and its source in the man macros of roff, see man(7).
type Page struct {
	File string
	Text []byte
}

// Pages returns the pages of a command and of all below it that are shown to users, in the order of the tree.
func (b Book) Pages(root *cobra.Command) []Page {
	pages := []Page{{b.file(root), b.Page(root)}}
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() || c.IsAdditionalHelpTopicCommand() {
			pages = append(pages, b.Pages(c)...)
		}
	}
	return pages
}

func (b Book) file(c *cobra.Command) string { return name(c) + "." + b.Section }

// name is a page's: that of the command with its parents, joined by hyphens.
func name(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// Page returns the page of one command.
func (b Book) Page(c *cobra.Command) []byte {
	var w page
	w.request("TH", strings.ToUpper(name(c)), b.Section, "", strings.TrimSpace(c.Root().Name()+" "+b.Version), c.Root().Name()+" manual")
	w.request("SH", "NAME")
	w.line(fmt.Sprintf("%s - %s", name(c), c.Short))
	w.request("SH", "SYNOPSIS")
	w.bold(c.CommandPath())
	w.line(strings.TrimSpace(strings.TrimPrefix(useLine(c), c.CommandPath())))
	long, status, _ := strings.Cut(c.Long, "EXIT STATUS:")
	if long = strings.TrimSpace(long); long == "" {
		long = c.Short + "."
	}
	w.request("SH", "DESCRIPTION")
	w.prose(long)
	w.commands(c)
	c.InitDefaultHelpFlag()
	w.flags("OPTIONS", c.NonInheritedFlags())
	w.flags("COMMON OPTIONS", c.InheritedFlags())
	if c.Example != "" {
		w.request("SH", "EXAMPLES")
		w.verbatim(c.Example)
	}
	b.statuses(&w, c, strings.TrimSpace(status))
	if c.HasParent() {
		w.request("SH", "SEE ALSO")
		w.line(fmt.Sprintf("%s(%s)", name(c.Parent()), b.Section))
		return w.Bytes()
	}
	for _, chapter := range b.More {
		w.request("SH", strings.ToUpper(chapter.Title))
		for _, e := range chapter.Entries {
			w.entry(e.Term, e.Text)
		}
	}
	return w.Bytes()
}

func useLine(c *cobra.Command) string {
	if c.HasSubCommands() {
		return c.CommandPath() + " COMMAND"
	}
	return c.UseLine()
}

// statuses writes what a command says of its exit statuses, or on the program's own page the whole table.
func (b Book) statuses(w *page, c *cobra.Command, own string) {
	switch {
	case !c.HasParent() && len(b.Statuses) > 0:
		w.request("SH", "EXIT STATUS")
		for _, s := range b.Statuses {
			w.entry(fmt.Sprint(s.Status), s.Meaning)
		}
	case own != "":
		w.request("SH", "EXIT STATUS")
		w.prose(own)
	}
}

// page is the source of a page that grows.
type page struct{ bytes.Buffer }

// request writes a line that roff acts on, with its arguments.
func (w *page) request(name string, args ...string) {
	w.WriteString("." + name)
	for _, a := range args {
		w.WriteString(` "` + strings.ReplaceAll(escape(a), `"`, `\(dq`) + `"`)
	}
	w.WriteByte('\n')
}

// line writes a line of text, which roff fills into its paragraph.
func (w *page) line(text string) {
	if text = strings.TrimRight(text, " \t\n"); text == "" {
		return
	}
	text = escape(text)
	if text[0] == '.' || text[0] == '\'' {
		text = `\&` + text
	}
	w.WriteString(text + "\n")
}

func (w *page) bold(text string) { w.request("B", text) }

func (w *page) entry(term, text string) {
	w.request("TP")
	w.bold(term)
	if strings.TrimSpace(text) == "" {
		w.WriteString("\\&\n")
		return
	}
	w.line(text)
}

// prose writes paragraphs. Lines that begin with a blank stand as they are.
func (w *page) prose(text string) {
	for i, paragraph := range strings.Split(strings.Trim(text, "\n"), "\n\n") {
		if i > 0 {
			w.request("PP")
		}
		var fixed []string
		flush := func() {
			if len(fixed) > 0 {
				w.verbatim(strings.Join(fixed, "\n"))
				fixed = nil
			}
		}
		for line := range strings.SplitSeq(paragraph, "\n") {
			if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
				fixed = append(fixed, line)
				continue
			}
			flush()
			w.line(line)
		}
		flush()
	}
}

// verbatim writes lines that are not filled.
func (w *page) verbatim(text string) {
	w.request("RS", "2")
	w.request("nf")
	for line := range strings.SplitSeq(strings.Trim(text, "\n"), "\n") {
		if strings.TrimSpace(line) == "" {
			w.WriteString("\\&\n")
			continue
		}
		w.line(strings.TrimPrefix(line, "  "))
	}
	w.request("fi")
	w.request("RE")
}

func (w *page) commands(c *cobra.Command) {
	first := true
	for _, sub := range c.Commands() {
		if !sub.IsAvailableCommand() && !sub.IsAdditionalHelpTopicCommand() {
			continue
		}
		if first {
			w.request("SH", "COMMANDS")
			first = false
		}
		w.entry(sub.Name(), sub.Short)
	}
}

func (w *page) flags(title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	w.request("SH", title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		term := "--" + f.Name
		if f.Shorthand != "" {
			term = "-" + f.Shorthand + ", " + term
		}
		if value != "" {
			term += " " + value
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && !strings.Contains(usage, "default") {
			usage += " (default " + f.DefValue + ")"
		}
		w.entry(term, usage)
	})
}

// escape makes text mean itself: roff(7) takes a backslash for the beginning of an escape, and a plain hyphen for one where a line may break.
func escape(text string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n", " ").Replace(text)
}
