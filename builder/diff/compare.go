package diff

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Compare compares two files or two directories. That they differ is no error.
func Compare(ctx context.Context, a, b string, opts Options) (*Report, error) {
	opts = opts.withDefaults()
	infoA, err := os.Stat(a)
	if err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	infoB, err := os.Stat(b)
	if err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	c := &comparison{ctx: ctx, opts: opts, report: &Report{Version: 1, A: a, B: b}}
	switch {
	case infoA.Mode().Type() != infoB.Mode().Type():
		c.tree = []treeDifference{{cause: Type, valueA: typeName(infoA.Mode()), valueB: typeName(infoB.Mode())}}
	case infoA.IsDir():
		err = c.trees(a, b)
	case infoA.Mode().IsRegular():
		err = c.files(a, b, infoA, infoB)
	default:
		err = fmt.Errorf("%q is %s, which cannot be compared", a, typeName(infoA.Mode()))
	}
	if err != nil {
		return nil, fmt.Errorf("compare %q with %q: %w", a, b, err)
	}
	c.finish()
	return c.report, nil
}

// comparison is one run of Compare.
type comparison struct {
	ctx    context.Context
	opts   Options
	report *Report

	tree   []treeDifference // what can be seen without looking into files; after the walk in the order of paths
	counts map[Cause]int
}

// files compares two files.
func (c *comparison) files(a, b string, infoA, infoB fs.FileInfo) error {
	c.report.Files, c.report.Bytes = 1, infoA.Size()
	if os.SameFile(infoA, infoB) {
		return nil
	}
	fileA, err := openFile(a)
	if err != nil {
		return err
	}
	defer fileA.Close()
	fileB, err := openFile(b)
	if err != nil {
		return err
	}
	defer fileB.Close()
	e := c.newExplainer()
	defer e.store.close()
	var statA, statB unix.Stat_t
	if err := errors.Join(unix.Fstat(int(fileA.Fd()), &statA), unix.Fstat(int(fileB.Fd()), &statB)); err != nil {
		return err
	}
	c.tree = append(c.tree, c.metadata("", &statA, &statB)...)
	if err := e.contents(place{}, content{fileA, statA.Size}, content{fileB, statB.Size}, 0); err != nil {
		return err
	}
	c.take(e)
	return nil
}

func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

func (c *comparison) newExplainer() *explainer {
	return &explainer{ctx: c.ctx, opts: c.opts, store: unpacker{opts: c.opts}}
}

// take adds what an explainer found to the report.
func (c *comparison) take(e *explainer) {
	for _, d := range e.found {
		c.count(d.Cause)
	}
	c.report.Differences = append(c.report.Differences, e.found...)
	c.report.Notes = append(c.report.Notes, e.notes...)
}

func (c *comparison) count(cause Cause) {
	if c.counts == nil {
		c.counts = map[Cause]int{}
	}
	c.counts[cause]++
	c.report.Total++
}

// trees compares two directories: first which files differ, then why.
func (c *comparison) trees(a, b string) error {
	rootA, err := os.OpenRoot(a)
	if err != nil {
		return err
	}
	defer rootA.Close()
	rootB, err := os.OpenRoot(b)
	if err != nil {
		return err
	}
	defer rootB.Close()
	w, err := walkTrees(c, a, b)
	if err != nil {
		return err
	}
	c.report.Files, c.report.Bytes = int(w.files.Load()), w.bytes.Load()
	c.tree = w.seen
	jobs := w.jobs()
	explained := make([]*explainer, min(len(jobs), c.opts.Differences))
	group, ctx := errgroup.WithContext(c.ctx)
	group.SetLimit(c.opts.Parallel)
	for i := range explained {
		group.Go(func() error {
			e := c.newExplainer()
			e.ctx = ctx
			defer e.store.close()
			explained[i] = e
			return e.job(jobs[i], rootA, rootB)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, e := range explained {
		c.take(e)
		c.dropExplained(e)
	}
	for _, j := range jobs[len(explained):] {
		c.count(Content)
		c.report.Notes = append(c.report.Notes, Name(j.path, nil)+": it differs; why was not looked at, since there are so many differences")
	}
	return nil
}

// job is one thing to explain.
type job struct {
	path string
	oci  bool // the directory path is an OCI layout
}

func (e *explainer) job(j job, rootA, rootB *os.Root) error {
	if j.oci {
		return e.ociLayout(j.path, rootA, rootB)
	}
	a, err := e.open(rootA, j.path)
	if err != nil {
		return err
	}
	b, err := e.open(rootB, j.path)
	if err != nil {
		return err
	}
	return e.contents(place{path: j.path}, a, b, 0)
}

// open opens a file of a tree; it is closed with the explainer.
func (e *explainer) open(root *os.Root, path string) (content, error) {
	f, err := root.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return content{}, err
	}
	e.store.files = append(e.store.files, f)
	info, err := f.Stat()
	if err != nil {
		return content{}, err
	}
	if !info.Mode().IsRegular() {
		return content{}, fmt.Errorf("open %q: it is no longer a file", path)
	}
	return content{f, info.Size()}, nil
}

// maxNotes bounds Report.Notes, which hostile input could fill.
const maxNotes = 100

// finish brings the report into its order and form.
func (c *comparison) finish() {
	r := c.report
	for _, d := range c.tree {
		c.count(d.cause)
		r.Differences = append(r.Differences, d.difference())
	}
	sortDifferences(r.Differences)
	if len(r.Differences) > c.opts.Differences {
		r.Differences = r.Differences[:c.opts.Differences]
	}
	if r.Differences == nil {
		r.Differences = []Difference{}
	}
	if len(r.Notes) > maxNotes {
		more := len(r.Notes) - maxNotes
		r.Notes = append(r.Notes[:maxNotes], fmt.Sprintf("%d more notes are left out", more))
	}
	if r.Notes == nil {
		r.Notes = []string{}
	}
	r.Causes = countCauses(c.counts)
	r.Equal = r.Total == 0
}
