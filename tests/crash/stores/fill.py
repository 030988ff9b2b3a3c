"""Fills a store through a broker of its time: python3 fill.py BINARY DIR FORMAT, with pika. How the archives beside it were made:
part of each is in tables, part in the log of a killed broker. tests/crash/upgrade.rs knows what is in them. Then:
rm -f DIR/lock DIR/control.sock DIR/db/LOG* DIR/db/LOCK; tar --sort=name -C DIR -cf - . | gzip -9n > format-N.tar.gz"""
import datetime,pika,subprocess,sys,re,signal,threading,time
binary,d,fmt=sys.argv[1:4]; fmt=int(fmt)
def start():
    p=subprocess.Popen([binary,"--data-dir",d,"--amqp-listen","127.0.0.1:0","--http-listen","none","--metrics-listen","none"],stderr=subprocess.PIPE,text=True)
    port=None
    for l in p.stderr:
        m=re.search(r"AMQP 0-9-1 listens on 127.0.0.1:(\d+)",l)
        if m: port=int(m[1])
        if "startup complete" in l: break
    threading.Thread(target=lambda:[None for _ in p.stderr],daemon=True).start()
    c=pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1",port)); ch=c.channel(); ch.confirm_delivery()
    return p,ch
def body(queue,n):
    size={7:5000,13:90000}.get(n,40)
    text=("%s %d "%(queue,n)).encode()
    return (text*(size//len(text)+1))[:size]
P=pika.BasicProperties
def put(ch,ex,key,queue,n,**kw):
    ch.basic_publish(ex,key,body(queue,n),P(delivery_mode=2,message_id=str(n),headers={"n":n},**kw))
def half(ch,h):
    for n in range(h*10,h*10+10):
        put(ch,"","plain","plain",n)
        put(ch,"fan","","fan",n)
        put(ch,"","priorities","priorities",n,priority=n%3)
        if fmt>=2: put(ch,"","deadlines","deadlines",n,expiration=str((10 if n%2 else 9)*365*86400*1000))
        if fmt>=3: ch.basic_publish("later","deadlines",body("later",n),P(delivery_mode=2,message_id=str(n),headers={"n":n,"x-opt-delivery-time":datetime.datetime(2126,1,1+n)}))
p,ch=start()
ch.queue_declare("plain",durable=True); ch.queue_declare("priorities",durable=True,arguments={"x-max-priority":5})
for q in ("fan1","fan2"): ch.queue_declare(q,durable=True)
ch.exchange_declare("fan","fanout",durable=True)
for q in ("fan1","fan2"): ch.queue_bind(q,"fan")
if fmt>=2: ch.queue_declare("deadlines",durable=True)
if fmt>=3:
    ch.exchange_declare("later","x-delayed-message",durable=True,arguments={"x-delayed-type":"direct"})
    ch.queue_bind("deadlines","later","deadlines")
half(ch,0)
p.send_signal(signal.SIGTERM); p.wait()
p,ch=start()
half(ch,1)
# All tags are of one channel: in the end four of plain and two of fan1 are acked, two more of fan1 were handed out.
for q in ("plain","fan1"):
    tags=[ch.basic_get(q)[0].delivery_tag for _ in range(4)]
    ch.basic_ack(tags[1],multiple=True)
put(ch,"","plain","plain",20)   # a confirm behind the acks
time.sleep(1.5)
p.kill(); p.wait()
