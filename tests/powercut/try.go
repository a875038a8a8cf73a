package powercut

import (
	"errors"
	"fmt"
	"testing"
)

// Try runs f with a TB of its own, whose failures it returns instead of failing t. What f has cleaned up is, when it returns.
func Try(t testing.TB, f func(testing.TB)) error {
	c := &caught{TB: t}
	c.run(func() { f(c) })
	for len(c.cleanups) > 0 {
		last := c.cleanups[len(c.cleanups)-1]
		c.cleanups = c.cleanups[:len(c.cleanups)-1]
		c.run(last)
	}
	return errors.Join(c.errs...)
}

type caught struct {
	testing.TB
	errs     []error
	cleanups []func()
}

// fatal is what Fatal panics with.
type fatal struct{}

func (c *caught) run(f func()) {
	defer func() {
		if r := recover(); r != nil && r != any(fatal{}) {
			panic(r)
		}
	}()
	f()
}

func (c *caught) Helper()             {}
func (c *caught) Log(...any)          {}
func (c *caught) Logf(string, ...any) {}
func (c *caught) Cleanup(f func())    { c.cleanups = append(c.cleanups, f) }
func (c *caught) Failed() bool        { return len(c.errs) > 0 }
func (c *caught) Error(args ...any)   { c.errs = append(c.errs, errors.New(fmt.Sprint(args...))) }

func (c *caught) Errorf(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

func (c *caught) Fatal(args ...any) {
	c.Error(args...)
	panic(fatal{})
}

func (c *caught) Fatalf(format string, args ...any) {
	c.Errorf(format, args...)
	panic(fatal{})
}
