package source

import (
	"reflect"
	"testing"
)

// What Telling returns has every setting of the Fetcher, also one that is added later.
func TestTelling(t *testing.T) {
	f := &Fetcher{}
	v := reflect.ValueOf(f).Elem()
	for i := range v.NumField() {
		field := v.Field(i)
		if !v.Type().Field(i).IsExported() {
			continue
		}
		switch field.Kind() {
		case reflect.Bool:
			field.SetBool(true)
		case reflect.String:
			field.SetString("x")
		case reflect.Int64:
			field.SetInt(7)
		case reflect.Pointer:
			field.Set(reflect.New(field.Type().Elem()))
		case reflect.Slice:
			field.Set(reflect.MakeSlice(field.Type(), 1, 1))
		case reflect.Map:
			field.Set(reflect.MakeMap(field.Type()))
		case reflect.Func:
			field.Set(reflect.MakeFunc(field.Type(), func([]reflect.Value) []reflect.Value { return nil }))
		case reflect.Struct:
			field.Field(0).SetInt(7)
		default:
			t.Fatalf("a field of kind %s", field.Kind())
		}
	}
	told := 0
	got := f.Telling(func(Event) { told++ })
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if v.Type().Field(i).IsExported() && reflect.ValueOf(got).Elem().Field(i).IsZero() {
			t.Errorf("%s is not set", name)
		}
	}
	if got.log(Event{}); told != 1 || got.transport() != f.transport() {
		t.Error("it does not tell, or has connections of its own")
	}
}
