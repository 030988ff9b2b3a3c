module leveret/interop/rabbit-hole

go 1.20

require github.com/michaelklishin/rabbit-hole/v2 v2.12.0 // indirect
