import asyncio
pytest_plugins = ["tests.fixtures.browser"]
def test_a(browser_thread):
    def look(b):
        p = b.new_context(offline=True).new_page(); p.goto("data:text/html,<title>hi</title>"); t=p.title(); p.context.close(); return t
    assert browser_thread.run(look)=="hi"
async def test_b(): await asyncio.sleep(0)
